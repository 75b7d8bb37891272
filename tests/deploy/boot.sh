#!/bin/bash
# Boots a real systemd over a throw-away copy of this machine's root, with the shipped units installed as deploy/README.md
# says, and runs OUT/probe.sh in it. Called as root inside fresh namespaces; nothing outside OUT is written.
#   REPO  the repository      SITE  site-packages with its dependencies      OUT  folder for probe.sh and what it writes
set -eu
base=$OUT/base && mkdir -p "$base" && mount -t tmpfs tmpfs "$base" && mkdir "$base"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
root=$base/root
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" && mount -t tmpfs tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/tmp/out" && mount --bind "$OUT" "$root/tmp/out"

/usr/bin/python3 -m venv --without-pip "$root/opt/tidegate"
mount --bind "$SITE" "$root/opt/tidegate/lib/$(basename "$(dirname "$SITE")")/site-packages"
mkdir "$root/opt/source"
for package in lb autoscaler forecaster nvml; do cp -r "$REPO/$package" "$root/opt/source/"; done
printf '#!/opt/tidegate/bin/python3\nimport sys\nfrom autoscaler.cli import main\nsys.exit(main())\n' > "$root/opt/tidegate/bin/tidegate"
chmod 755 "$root/opt/tidegate/bin/tidegate"

units=$root/etc/systemd/system
rm -rf "$units" && mkdir -p "$units/tidegate.service.d" "$root/usr/lib/sysusers.d"
cp "$REPO"/deploy/systemd/tidegate.{service,socket} "$units/"
sed -i 's/0.0.0.0:8080/127.0.0.1:80/' "$units/tidegate.socket"
printf '[Service]\nEnvironment=PYTHONPATH=/opt/source\n' > "$units/tidegate.service.d/source.conf"
cp "$REPO/deploy/systemd/tidegate.sysusers" "$root/usr/lib/sysusers.d/tidegate.conf"
chroot "$root" systemd-sysusers /usr/lib/sysusers.d/tidegate.conf
install -d -m 750 "$root/etc/tidegate" && cp "$OUT/policy.yaml" "$root/etc/tidegate/"
echo secret > "$root/etc/tidegate/admin-token"
chroot "$root" chgrp -R tidegate /etc/tidegate && chmod 640 "$root"/etc/tidegate/*
printf '[Unit]\nDefaultDependencies=no\nWants=%s probe.service\n' "$WANTS" > "$units/trial.target"
printf '[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/bash /tmp/out/probe.sh\nStandardOutput=append:/tmp/out/said\nStandardError=append:/tmp/out/errors\n' \
  > "$units/probe.service"
ip link set lo up
exec chroot "$root" /usr/bin/env -i container=other PATH=/usr/bin:/bin:/usr/sbin:/sbin \
  /lib/systemd/systemd --unit=trial.target --log-target=console --show-status=no
