/* The machine that a measurement ran on, for reports. */
#ifndef SL_CLI_MACHINE_H
#define SL_CLI_MACHINE_H

#include "app/bundle.h"

#include <jansson.h>

/* CPU, its number of CPUs that this process may use, and how busy the system was. */
typedef struct sl_machine {
    char cpu[96];
    int n_cpus;
    double load; /* runnable threads, average of the last minute; negative = unknown */
} sl_machine;

/* Taken before a measurement begins. */
sl_machine sl_machine_look(void);

/* {"cpu", "cpus", "load_before", "threads", "level"}; bundle says the last two. NULL when memory is short. */
json_t *sl_machine_json(const sl_machine *machine, const sl_bundle *bundle);

/* The same in one line of text, with a line end. */
void sl_machine_print(const sl_machine *machine, const sl_bundle *bundle);

#endif
