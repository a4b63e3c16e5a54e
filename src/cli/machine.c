#include "cli/machine.h"

#include "base/cpu.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char unknown[] = "unknown CPU";

/* What Linux calls the first CPU. */
static void read_cpu_name(char *out, size_t n_out)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(out, n_out, "%s", unknown);
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, n_out, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (file != NULL)
        fclose(file);
}

sl_machine sl_machine_look(void)
{
    sl_machine machine = {.n_cpus = sl_cpu_count(), .load = -1};
    read_cpu_name(machine.cpu, sizeof(machine.cpu));
    if (getloadavg(&machine.load, 1) != 1)
        machine.load = -1;
    return machine;
}

json_t *sl_machine_json(const sl_machine *machine, const sl_bundle *bundle)
{
    return json_pack("{s:o, s:i, s:f, s:i, s:s}", "cpu", sl_json_text(machine->cpu, strlen(machine->cpu)), "cpus",
                     machine->n_cpus, "load_before", machine->load, "threads",
                     sl_threads_count(sl_bundle_threads(bundle)), "level",
                     sl_level_name(sl_model_plan(sl_bundle_model(bundle))->level));
}

void sl_machine_print(const sl_machine *machine, const sl_bundle *bundle)
{
    sl_out_printf("%s, %d CPUs, load before %.1f; %d threads, level %s\n", machine->cpu, machine->n_cpus, machine->load,
                  sl_threads_count(sl_bundle_threads(bundle)),
                  sl_level_name(sl_model_plan(sl_bundle_model(bundle))->level));
}
