/* Answers the NVML calls that detection makes, without a driver: GPUs of the name, number and memory in the environment. */
#include <stdio.h>
#include <stdlib.h>

typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}
static int fails(const char *function) {
    const char *name = getenv("FAKE_NVML_FAILS");
    if (name == NULL) return 0;
    while (*name && *name == *function) { name++; function++; }
    return *name == *function;
}

nvmlReturn_t nvmlInit_v2(void) { return fails("nvmlInit_v2") ? 9 : 0; }
nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return fails("nvmlInit_v2") ? 9 : 0; }
nvmlReturn_t nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(nvmlReturn_t code) { return code == 9 ? "Driver Not Loaded" : code == 3 ? "Not Supported" : "Error"; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) { *count = atoi(setting("FAKE_NVML_COUNT", "2")); return 0; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    *device = (nvmlDevice_t)(long)(index + 1);
    return 0;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    (void)device;
    snprintf(name, length, "%s", setting("FAKE_NVML_NAME", "Tesla V100-SXM2-16GB"));
    return 0;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    (void)device;
    if (fails("nvmlDeviceGetMemoryInfo")) return 3;
    memory->total = strtoull(setting("FAKE_NVML_MEMORY_MIB", "16160"), NULL, 10) << 20;
    memory->used = 0;
    memory->free = memory->total;
    return 0;
}
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    (void)device;
    if (fails("nvmlDeviceGetCudaComputeCapability")) return 3;
    *major = 7;
    *minor = 0;
    return 0;
}
nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 300000;
    return 0;
}
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "550.54.15"); return 0; }
