/* A libnvidia-ml.so.1 whose answers are scripted. Built by the tests with the C compiler, loaded by the real pynvml.
 *
 * Script, one command a line (stub_command, the file named by NVML_STUB_SCRIPT when the library is loaded, and the one named
 * by NVML_STUB_LIVE before each step after which it is another file, for processes that a test cannot call into):
 *   gpus <n>                                   number of cards
 *   on <function> [gpu=<i>] [from=<step>] [to=<step>] [ret=<code>] [hang_ms=<n>] [v0=<u64>] [v1=..] [v2=..] [v3=..]
 *   uuid <gpu> <text> [from=<step>]            the card's UUID from that step on
 *   proc <gpu> <pid> <bytes> [gi] [ci]         a compute process
 *   noproc <gpu>                               forget the card's processes
 *   mig <gpu> <slot> <gi> <ci> <used> <total>  a MIG instance (turns MIG on for the card)
 *   field <gpu> <field id> <ret> <value>       a field value
 *   xid <gpu> <number>                         an event, delivered once
 *   reset                                      forget everything
 * A step is the number of nvmlDeviceGetCount_v2 calls so far, which is one per sample. The last matching `on` rule wins.
 * v0.. are the outputs in the order of the function's out parameters.
 *
 * -DOLD_DRIVER leaves out the symbols that drivers before 510 do not have.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef unsigned int u32;
typedef unsigned long long u64;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       TIMEOUT = 10, VERSION_MISMATCH = 25 };
#define MAX_GPUS 32
#define MAX_RULES 512
#define MAX_PROCS 512
#define MAX_MIG 8
#define MAX_FIELDS 64
#define MAX_XIDS 256

typedef struct { char fn[64]; int gpu; long from, to; int ret; long hang_ms; int has[4]; u64 v[4]; } rule_t;
typedef struct { u32 pid; u64 used; u32 gi, ci; } proc_t;                 /* nvmlProcessInfo_t, v2 and v3 */
typedef struct { u32 gi, ci; u64 used, total; } mig_t;
typedef struct { u32 id; int ret; u64 value; } field_t;
typedef struct device { int index, mig_slot; } device_t;
typedef struct { u64 total, free, used; } memory_v1_t;
typedef struct { u32 version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { u32 gpu, memory; } utilization_t;
typedef struct { char legacy[16]; u32 domain, bus, device, pci_id, sub_id; char bus_id[32]; } pci_t;
typedef struct { device_t *device; u64 type, data; u32 gi, ci; } event_t;
typedef union { double d; u32 ui; unsigned long ul; u64 ull; long long sll; int si; unsigned short us; } value_t;
typedef struct { u32 field, scope; long long timestamp, latency; int type, ret; value_t value; } field_value_t;
_Static_assert(sizeof(proc_t) == 24, "nvmlProcessInfo_t");
_Static_assert(sizeof(memory_v2_t) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(field_value_t) == 40, "nvmlFieldValue_t");
_Static_assert(sizeof(event_t) == 32, "nvmlEventData_t");
_Static_assert(sizeof(pci_t) == 68, "nvmlPciInfo_t");

static device_t devices[MAX_GPUS][MAX_MIG + 1];
static rule_t rules[MAX_RULES];
static int rule_count, gpu_count, initialised, event_sets;
static long step, calls;
static proc_t procs[MAX_GPUS][MAX_PROCS];
static int proc_count[MAX_GPUS], mig_on[MAX_GPUS], field_count[MAX_GPUS];
static mig_t migs[MAX_GPUS][MAX_MIG];
static int mig_used[MAX_GPUS][MAX_MIG];
static field_t fields[MAX_GPUS][MAX_FIELDS];
static char uuids[MAX_GPUS][2][96];
static long uuid_from[MAX_GPUS];
static struct { int gpu; u64 number; } xids[MAX_XIDS];
static int xid_head, xid_tail;

static void stub_reset(void) {
    rule_count = gpu_count = 0; step = calls = 0; xid_head = xid_tail = 0;
    memset(proc_count, 0, sizeof proc_count); memset(mig_on, 0, sizeof mig_on); memset(field_count, 0, sizeof field_count);
    memset(mig_used, 0, sizeof mig_used);
    for (int i = 0; i < MAX_GPUS; i++) {
        snprintf(uuids[i][0], 96, "GPU-00000000-0000-0000-0000-%012d", i);
        uuids[i][1][0] = 0; uuid_from[i] = 0;
        for (int m = 0; m <= MAX_MIG; m++) { devices[i][m].index = i; devices[i][m].mig_slot = m - 1; }
    }
}

static int on_rule(char *line) {
    if (rule_count == MAX_RULES) return 1;
    rule_t r; memset(&r, 0, sizeof r); r.gpu = -1; r.to = -1;
    char *save, *word = strtok_r(line, " \n", &save);
    if (!word) return 1;
    snprintf(r.fn, sizeof r.fn, "%s", word);
    while ((word = strtok_r(NULL, " \n", &save))) {
        char *eq = strchr(word, '=');
        if (!eq) return 1;
        *eq++ = 0;
        if (!strcmp(word, "gpu")) r.gpu = atoi(eq);
        else if (!strcmp(word, "from")) r.from = atol(eq);
        else if (!strcmp(word, "to")) r.to = atol(eq);
        else if (!strcmp(word, "ret")) r.ret = atoi(eq);
        else if (!strcmp(word, "hang_ms")) r.hang_ms = atol(eq);
        else if (word[0] == 'v' && word[1] >= '0' && word[1] <= '3' && !word[2]) {
            int i = word[1] - '0'; r.has[i] = 1; r.v[i] = strtoull(eq, NULL, 0);
        } else return 1;
    }
    rules[rule_count++] = r;
    return 0;
}

int stub_command(const char *text) {
    char line[512], word[64] = "", name[96]; int a = 0, b = 0, n = 0; u32 c = 0, d = 0; u64 x = 0, y = 0; long from = 0;
    snprintf(line, sizeof line, "%s", text);
    if (sscanf(line, "%63s%n", word, &n) != 1) return 0;
    char *rest = line + n;
    if (!strcmp(word, "reset")) { stub_reset(); return 0; }
    if (!strcmp(word, "gpus")) return sscanf(rest, "%d", &gpu_count) != 1;
    if (!strcmp(word, "on")) return on_rule(rest);
    if (sscanf(rest, "%d", &a) != 1 || a < 0 || a >= MAX_GPUS) return 1;
    if (!strcmp(word, "uuid")) {
        int got = sscanf(rest, "%d %95s from=%ld", &a, name, &from);
        if (got < 2) return 1;
        snprintf(uuids[a][got == 3], 96, "%s", name); if (got == 3) uuid_from[a] = from;
        return 0;
    }
    if (!strcmp(word, "proc")) {
        c = d = 0xFFFFFFFFu;
        if (proc_count[a] == MAX_PROCS || sscanf(rest, "%d %d %llu %u %u", &a, &b, &x, &c, &d) < 3) return 1;
        procs[a][proc_count[a]++] = (proc_t){(u32)b, x, c, d}; return 0;
    }
    if (!strcmp(word, "noproc")) { proc_count[a] = 0; return 0; }
    if (!strcmp(word, "mig")) {
        if (sscanf(rest, "%d %d %u %u %llu %llu", &a, &b, &c, &d, &x, &y) != 6 || b < 0 || b >= MAX_MIG) return 1;
        migs[a][b] = (mig_t){c, d, x, y}; mig_used[a][b] = mig_on[a] = 1; return 0;
    }
    if (!strcmp(word, "field")) {
        if (field_count[a] == MAX_FIELDS || sscanf(rest, "%d %u %d %llu", &a, &c, &b, &x) != 4) return 1;
        fields[a][field_count[a]++] = (field_t){c, b, x}; return 0;
    }
    if (!strcmp(word, "xid")) {
        if (sscanf(rest, "%d %llu", &a, &x) != 2 || xid_tail == MAX_XIDS) return 1;
        xids[xid_tail].gpu = a; xids[xid_tail++].number = x; return 0;
    }
    return 1;
}

long stub_step(void) { return step; }
long stub_calls(void) { return calls; }
int stub_event_sets(void) { return event_sets; }

static void run_script(const char *path) {
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    while (file && fgets(line, sizeof line, file))
        if (stub_command(line)) { fprintf(stderr, "nvml stub: bad line: %s", line); abort(); }
    if (file) fclose(file);
}

__attribute__((constructor)) static void load(void) { stub_reset(); run_script(getenv("NVML_STUB_SCRIPT")); }

static void run_live_script(void) {
    static ino_t seen;
    const char *path = getenv("NVML_STUB_LIVE");
    struct stat now;
    if (!path || stat(path, &now) || now.st_ino == seen) return;
    seen = now.st_ino;
    run_script(path);
}

/* The rule for this call, after its hang; *ret is what the function must return. */
static const rule_t *enter(const char *fn, int gpu, int *ret) {
    const rule_t *found = NULL;
    calls++;
    for (int i = rule_count - 1; i >= 0 && !found; i--)
        if ((rules[i].gpu < 0 || rules[i].gpu == gpu) && step >= rules[i].from && (rules[i].to < 0 || step <= rules[i].to)
            && !strcmp(rules[i].fn, fn)) found = &rules[i];
    if (found && found->hang_ms) {
        struct timespec wait = {found->hang_ms / 1000, (found->hang_ms % 1000) * 1000000};
        while (nanosleep(&wait, &wait)) {}
    }
    *ret = found ? found->ret : SUCCESS;
    if (!initialised && strcmp(fn, "nvmlInitWithFlags")) *ret = UNINITIALIZED;
    return found;
}
#define V(i, otherwise) (r && r->has[i] ? r->v[i] : (u64)(otherwise))
#define ENTER(dev) int ret; const rule_t *r = enter(__func__, (dev) ? (dev)->index : -1, &ret); (void)r; if (ret) return ret

int nvmlInitWithFlags(u32 flags) {
    int ret; enter(__func__, -1, &ret); (void)flags;
    if (!ret) initialised++;
    return ret;
}
int nvmlShutdown(void) { ENTER((device_t *)0); initialised--; return 0; }
int nvmlSystemGetDriverVersion(char *text, u32 size) {
    ENTER((device_t *)0);
#ifndef STUB_VERSION
#define STUB_VERSION "570.86.15"
#endif
    snprintf(text, size, "%s", STUB_VERSION); return 0;
}
int nvmlDeviceGetCount_v2(u32 *count) {
    run_live_script();
    step++;
    ENTER((device_t *)0); *count = (u32)V(0, gpu_count); return 0;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, device_t **device) {
    int ret; enter(__func__, (int)index, &ret);
    if (ret) return ret;
    if (index >= MAX_GPUS) return INVALID_ARGUMENT;
    *device = &devices[index][0]; return 0;
}
int nvmlDeviceGetUUID(device_t *d, char *text, u32 size) {
    ENTER(d);
    if (d->mig_slot >= 0) snprintf(text, size, "MIG-%d-%d", d->index, d->mig_slot);
    else snprintf(text, size, "%s", uuids[d->index][uuids[d->index][1][0] && step >= uuid_from[d->index]]);
    return 0;
}
int nvmlDeviceGetName(device_t *d, char *text, u32 size) { ENTER(d); snprintf(text, size, "Stub H100 80GB"); return 0; }
int nvmlDeviceGetPciInfo_v3(device_t *d, pci_t *pci) {
    ENTER(d); memset(pci, 0, sizeof *pci);
    pci->bus = (u32)d->index + 1; snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus); return 0;
}
int nvmlDeviceGetMemoryInfo(device_t *d, memory_v1_t *m) {
    ENTER(d);
    u64 used = V(0, 40ull << 30), total = V(1, 80ull << 30), reserved = V(2, 1ull << 30);
    m->used = used + reserved; m->total = total; m->free = total - m->used; return 0;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(device_t *d, memory_v2_t *m) {
    ENTER(d);
    if (m->version != (sizeof(memory_v2_t) | 2u << 24)) return VERSION_MISMATCH;
    if (d->mig_slot >= 0) {
        m->used = migs[d->index][d->mig_slot].used; m->total = migs[d->index][d->mig_slot].total;
        m->reserved = 0; m->free = m->total - m->used; return 0;
    }
    m->used = V(0, 40ull << 30); m->total = V(1, 80ull << 30); m->reserved = V(2, 1ull << 30);
    m->free = V(3, m->total - m->used - m->reserved); return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device_t *d, u32 *count, proc_t *out) {
    ENTER(d);
    u32 have = (u32)proc_count[d->index];
    if (*count < have || (have && !out)) { *count = have; return INSUFFICIENT_SIZE; }
    if (out) memcpy(out, procs[d->index], have * sizeof *out);
    *count = have; return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(device_t *d, u64 *bits) { ENTER(d); *bits = V(0, 0); return 0; }
int nvmlDeviceGetRemappedRows(device_t *d, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    ENTER(d);
    *corrected = (u32)V(0, 0); *uncorrected = (u32)V(1, 0); *pending = (u32)V(2, 0); *failed = (u32)V(3, 0); return 0;
}
#endif
int nvmlDeviceGetComputeRunningProcesses_v2(device_t *d, u32 *count, proc_t *out) {
    ENTER(d);
    u32 have = (u32)proc_count[d->index];
    if (*count < have || (have && !out)) { *count = have; return INSUFFICIENT_SIZE; }
    if (out) memcpy(out, procs[d->index], have * sizeof *out);
    *count = have; return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t *d, u64 *bits) { ENTER(d); *bits = V(0, 0); return 0; }
int nvmlDeviceGetRetiredPagesPendingStatus(device_t *d, int *pending) { ENTER(d); *pending = (int)V(0, 0); return 0; }
int nvmlDeviceGetUtilizationRates(device_t *d, utilization_t *u) {
    ENTER(d);
    if (mig_on[d->index]) return NOT_SUPPORTED;
    u->gpu = (u32)V(0, 50); u->memory = (u32)V(1, 30); return 0;
}
int nvmlDeviceGetTemperature(device_t *d, int sensor, u32 *t) { ENTER(d); (void)sensor; *t = (u32)V(0, 55); return 0; }
int nvmlDeviceGetPowerUsage(device_t *d, u32 *mw) { ENTER(d); *mw = (u32)V(0, 350000); return 0; }
int nvmlDeviceGetEnforcedPowerLimit(device_t *d, u32 *mw) { ENTER(d); *mw = (u32)V(0, 700000); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(device_t *d, u64 *mj) { ENTER(d); *mj = V(0, 1000000 + 350 * step); return 0; }
int nvmlDeviceGetClockInfo(device_t *d, int type, u32 *mhz) { ENTER(d); *mhz = (u32)(type == 1 ? V(0, 1980) : V(1, 2619)); return 0; }
int nvmlDeviceGetMaxClockInfo(device_t *d, int type, u32 *mhz) { ENTER(d); *mhz = type == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetTotalEccErrors(device_t *d, int type, int counter, u64 *count) {
    ENTER(d);
    if (type > 1 || counter > 1) return INVALID_ARGUMENT;
    *count = V(type, 0); return 0;
}
int nvmlDeviceGetPcieReplayCounter(device_t *d, u32 *count) { ENTER(d); *count = (u32)V(0, 0); return 0; }
int nvmlDeviceGetMigMode(device_t *d, u32 *current, u32 *pending) { ENTER(d); *current = *pending = (u32)mig_on[d->index]; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(device_t *d, u32 *count) { ENTER(d); *count = MAX_MIG; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(device_t *d, u32 slot, device_t **mig) {
    ENTER(d);
    if (slot >= MAX_MIG || !mig_used[d->index][slot]) return NOT_FOUND;
    *mig = &devices[d->index][slot + 1]; return 0;
}
int nvmlDeviceGetGpuInstanceId(device_t *d, u32 *id) { ENTER(d); *id = migs[d->index][d->mig_slot].gi; return 0; }
int nvmlDeviceGetComputeInstanceId(device_t *d, u32 *id) { ENTER(d); *id = migs[d->index][d->mig_slot].ci; return 0; }
int nvmlDeviceGetFieldValues(device_t *d, int count, field_value_t *values) {
    ENTER(d);
    for (int i = 0; i < count; i++) {
        values[i].ret = NOT_SUPPORTED;
        for (int f = 0; f < field_count[d->index]; f++)
            if (fields[d->index][f].id == values[i].field) {
                values[i].ret = fields[d->index][f].ret; values[i].type = 3; values[i].value.ull = fields[d->index][f].value;
            }
    }
    return 0;
}
int nvmlEventSetCreate(void **set) { ENTER((device_t *)0); event_sets++; *set = &event_sets; return 0; }
int nvmlEventSetFree(void *set) { ENTER((device_t *)0); (void)set; event_sets--; return 0; }
int nvmlDeviceGetSupportedEventTypes(device_t *d, u64 *types) { ENTER(d); *types = V(0, 0x1F); return 0; }
int nvmlDeviceRegisterEvents(device_t *d, u64 types, void *set) { ENTER(d); (void)types; (void)set; return 0; }
int nvmlEventSetWait_v2(void *set, event_t *event, u32 timeout_ms) {
    ENTER((device_t *)0); (void)set; (void)timeout_ms;
    if (xid_head == xid_tail) return TIMEOUT;
    memset(event, 0, sizeof *event);
    event->device = &devices[xids[xid_head].gpu][0]; event->type = 8; event->data = xids[xid_head++].number;
    if (xid_head == xid_tail) xid_head = xid_tail = 0;
    event->gi = event->ci = 0xFFFFFFFFu; return 0;
}
const char *nvmlErrorString(int code) { (void)code; return "stub error"; }
