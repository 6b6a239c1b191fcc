/* What the kernel counts of this process. */
#ifndef PAL_BASE_PROCESS_H
#define PAL_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* A line of /proc/self/status in bytes: "VmHWM", the peak of resident memory, or
 * "VmRSS"; 0 when unknown. */
uint64_t pal__process_memory(const char *field);

/* Makes the peak of resident memory what is resident now. False: the system does not. */
bool pal__process_reset_peak(void);

#endif
