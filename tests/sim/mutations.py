#!/usr/bin/env python3
"""Breaks the engine on purpose, one place at a time, and expects the simulation or the scenes to notice.

    mutations.py BUILD_FOLDER [NAME ...]

Each mutation below replaces pieces of text in files under src/engine; the changed files are compiled as the build does it
and linked in front of the library, in a temporary folder. A mutation that no program notices is a failure, and so is one
that is noticed only because a program does not end, and one whose text is not found any more: then the mutation has to
follow the code.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE = ROOT / "src" / "engine"

# Programs that may notice, in this order, with their arguments.
PROGRAMS = [("tests/sim/test_memory", []), ("tests/unit/test_schedule", []), ("tests/sim/simulate", ["1", "20"]),
            ("tests/unit/test_schedule_trace", []), ("tests/sim/simulate", ["55284", "1"]),
            ("tests/sim/simulate", ["21", "380"])]

# Name -> (what is wrong then, [(file, text, replacement), ...]).
MUTATIONS = {
    "leak-block": ("some blocks are never freed", [
        ("blocks.c", "if (--blocks->refs[block] == 0)", "if (--blocks->refs[block] == 0 && block % 7 != 3)")]),
    "free-twice": ("a block is freed while others hold it", [
        ("blocks.c", "if (--blocks->refs[block] == 0)", "if (--blocks->refs[block] <= 1 && block % 7 == 3)")]),
    "copy-nothing": ("a shared last block is replaced, but its content is not copied", [
        ("kv.c", "kv->backend->copy_block(kv->context, g, shared, *slot);", "")]),
    "write-shared": ("choices write into the block that they share", [
        ("kv.c", "if (kv->pools[g].refs[shared] == 1)\n        return true;", "return true;")]),
    "forget-holder": ("a hit takes blocks without counting itself", [
        ("prefix.c", "leave_idle(t, g, node);\n    sl_blocks_share(&t->pools[g], block);", "leave_idle(t, g, node);")]),
    "window-short": ("windowed blocks are let go one position early", [
        ("kv.c", "(n_positions - window + 1) / SL_KV_BLOCK : 0", "(n_positions - window + 2) / SL_KV_BLOCK : 0")]),
    "window-long": ("windowed blocks are kept too long", [
        ("kv.c", "(n_positions - window + 1) / SL_KV_BLOCK : 0", "(n_positions - window) / SL_KV_BLOCK : 0")]),
    "hit-last-token": ("a hit may cover the last token", [
        ("kv.c", "SL_MIN(s->n_tokens - 1, s->n_scored)", "SL_MIN(s->n_tokens, s->n_scored)")]),
    "hit-scored": ("a hit may skip positions that are to be scored", [
        ("kv.c", "SL_MIN(s->n_tokens - 1, s->n_scored)", "(s->n_tokens - 1)")]),
    "hit-without-window": ("a hit does not ask for the blocks that windows reach", [
        ("kv.c", "reaches &= run[g] >=", "reaches |= run[g] >=")]),
    "other-parent": ("nodes are found by their own tokens, whatever came before", [
        ("prefix.c", "message = {.parent = *parent};", "message = {{{0, 0}}, {0}};"),
        ("prefix.c", "if (n->parent == parent && memcmp", "if (memcmp")]),
    "other-tokens": ("nodes are found by bucket alone", [
        ("prefix.c", "memcmp(&n->digest, digest, sizeof *digest) == 0 &&\n            "
         "memcmp(n->tokens, tokens, sizeof n->tokens) == 0", "true")]),
    "other-tenant": ("tenants share what they cache", [
        ("prefix.c", "words[] = {tenant, adapter,", "words[] = {0, adapter,"),
        ("prefix.c", "tokens[0] = (uint32_t)tenant;", "tokens[0] = 0;")]),
    "evict-inner": ("blocks are evicted that others stand behind", [
        ("prefix.c", "if (is_idle(t, g, node) && !(is_full && t->nodes[node].n_children > 0))",
         "if (is_idle(t, g, node))")]),
    "layered-early": ("layered rows count as done before the last part", [
        ("step.c", "        if (s->n_parts_done > 0) {\n            s->n_planned = 0;\n            return;\n        }\n", "")]),
    "layered-kept": ("a pre-empted prompt goes on with layered rows whose blocks are gone", [
        ("step.c", "    s->n_layered = s->n_parts_done = 0;\n", "")]),
    "layered-last": ("a prompt's last row is layered, though its logits are wanted", [
        ("schedule.c", "SL_MIN(SL_MIN(room, n_left - 1), (uint32_t)SL_LAYERED_ROWS)",
         "SL_MIN(SL_MIN(room, n_left), (uint32_t)SL_LAYERED_ROWS)")]),
    "layered-among": ("other prompts have rows while layered ones are on their way", [
        ("schedule.c", "        if (layered) {\n            n_prompt_rows", "        if (layered && task->n_rows > 0) {\n            n_prompt_rows")]),
    "layered-long": ("layered rows go through twice the parts that fit", [
        ("cost.c", "return low - begin;", "return SL_MIN(2 * (low - begin), cost->n_parts - begin);")]),
    "layered-dry": ("layered rows that nothing fits beside go through all parts now and then", [
        ("schedule.c", "limit_us = fmax(limit_us, sl_cost_predict_us(s->cost, &block));", "limit_us = INFINITY;")]),
    "layered-room": ("layered rows leave no room for streams that begin meanwhile", [
        ("schedule.c", "SL_MAX(work->n_rows, schedule->options.n_slots)", "work->n_rows")]),
    "layered-again": ("a request that is pushed out and starts again in the same step has the layered rows that it had", [
        ("step.c", "        sl_tasks_update(t, t->order[i]);\n    }\n}",
         "        task->n_done = s->n_done;\n        task->n_left = s->n_tokens - s->n_done;\n    }\n}")]),
    "keep-logits": ("rows without blocks keep the logits that they were to have", [
        ("step.c", "cut_plan(e, s, got - s->n_done);", "s->n_planned = got - s->n_done;")]),
    "evict-pinned": ("pins keep nothing", [
        ("prefix.c", "t->pools[g].refs[n->blocks[g]] == 1 && n->n_pins[g] == 0", "t->pools[g].refs[n->blocks[g]] == 1")]),
    "never-evict": ("cached blocks are never given up", [
        ("kv.c", "kv->pools[g].n_free == 0 && !sl_prefix_evict(&kv->tree, g)", "kv->pools[g].n_free == 0")]),
    "leak-node": ("who leaves a node stays counted", [
        ("prefix.c", "t->nodes[node].n_users--;\n", "t->nodes[node].n_users -= node % 5 != 0;\n")]),
    "never-preempt": ("nobody makes way", [
        ("step.c", "(victim = find_victim(s))", "(victim = NULL)")]),
    "preempt-next": ("the next in order is pre-empted instead of the last", [
        ("step.c", "while (last && last->next)\n        last = last->next;", "")]),
    "preempt-keeps": ("whoever is pre-empted keeps its blocks", [
        ("step.c", "    sl_kv_release(&e->kv, s);\n    sl_queue_insert(e, &e->waiting, s);",
         "    sl_queue_insert(e, &e->waiting, s);")]),
    "preempt-first": ("the first in order makes way as well", [
        ("step.c", "sl_sequence *last = s->next;", "sl_sequence *last = s;")]),
    "take-ahead": ("a block is taken before a row needs it", [
        ("kv.c", "while ((uint64_t)s->n_taken[g] * SL_KV_BLOCK < end &&",
         "while ((uint64_t)s->n_taken[g] * SL_KV_BLOCK <= end &&"),
        ("kv.c", "(uint32_t)sl_ceil_div(end, SL_KV_BLOCK));", "end / SL_KV_BLOCK + 1);")]),
    "admit-unfit": ("requests are accepted that never fit", [
        ("kv.c", "if (need > have - pinned)", "if (need > have + 2)")]),
    "compute-twice": ("nobody waits for what another is computing", [
        ("step.c", "if (e->members[i]->n_planned > 0 && sl_kv_makes_next(&e->kv, e->members[i], s))",
         "if (false)")]),
    "publish-late": ("blocks go into the tree only when a sequence ends", [
        ("kv.c", "while (kv->shares && s->n_published <", "while (kv->shares && s->finished && s->n_published <")]),
    "score-again": ("choices score the prompt once more after a pre-emption", [
        ("step.c", "        sibling->n_scored = s->n_scored;\n", "")]),
    "same-choices": ("all choices draw the same numbers", [
        ("sequence.c", "choice == 0 ? seed :", "choice <= 8 ? seed :")]),
    "lose-sibling": ("choices that never began are not told of the end", [
        ("step.c", "sibling; sibling = sibling->next) {\n        sibling->error", "false;) {\n        sibling->error")]),
    # The scheduler.
    "no-ageing": ("nobody is ever overdue", [
        ("schedule.c", "schedule->turn >= schedule->options.ageing_turn)", "false)")]),
    "ageing-always": ("who is overdue goes first in every step", [
        ("schedule.c", "if (oldest && schedule->turn >= schedule->options.ageing_turn)", "if (oldest)")]),
    "no-priority": ("the order ignores priorities", [
        ("schedule.c", "if (a->priority != b->priority)\n        return a->priority > b->priority;\n    if (a->feasible",
         "if (a->feasible")]),
    "no-priority-memory": ("who keeps its blocks does not follow from priority", [
        ("schedule.c", "if (!a_spared && a->priority != b->priority)\n        return a->priority > b->priority;\n", "")]),
    "never-spared": ("a sequence may be pre-empted without end", [
        ("schedule.c", "if (a_spared != b_spared)\n        return a_spared;\n", "")]),
    "slow-crowd": ("many prompts get as little of a step as one", [
        ("schedule.c", "pow(schedule->options.itl_factor, SL_MAX(n_prompts, 1))", "schedule->options.itl_factor")]),
    "unseen-logits": ("scored prompts count as if their last row alone had logits", [
        ("tasks.c", "from >= s->request.n_prompt ? 1 : s->n_tokens - from;", "from >= s->request.n_prompt ? 1 : 1;")]),
    "push-nobody": ("nobody makes way for a higher priority", [
        ("schedule.c", "return waiting->priority > running->priority &&", "return false &&")]),
    "push-equals": ("who has the same priority is pushed out", [
        ("schedule.c", "waiting->priority > running->priority", "waiting->priority >= running->priority")]),
    "push-without-end": ("who was pre-empted often enough is pushed out again", [
        ("schedule.c", "!running->ageing &&\n           running->n_preemptions < schedule->options.most_preemptions", "!running->ageing")]),
    "push-in-vain": ("running ones are pushed out though that is not enough", [
        ("step.c", "for (bool more = would_do; more", "for (bool more = true; more")]),
    "no-budget": ("prompts take all rows, whatever the streams wait", [
        ("schedule.c", "if (s->limit_us == INFINITY)\n        return SL_MIN", "if (true)\n        return SL_MIN")]),
    "late-first": ("deadlines that cannot be met go first", [
        ("schedule.c", "if (a->feasible != b->feasible)\n        return a->feasible;",
         "if (a->feasible != b->feasible)\n        return b->feasible;")]),
    "deadline-last": ("of deadlines that can be met the latest goes first", [
        ("schedule.c", "return a->deadline_us < b->deadline_us;\n    if (!a->feasible",
         "return a->deadline_us > b->deadline_us;\n    if (!a->feasible")]),
    "give-up-nothing": ("all deadlines count as met in time", [
        ("schedule.c", "while (n_heap > 0 && above_us + busy_us", "while (false && above_us + busy_us")]),
    "no-shares": ("tenants are not charged", [
        ("tenants.c", "virtual_time += n_rows / t->tenants[index].weight", "virtual_time += 0 * n_rows")]),
    "weight-inverse": ("a larger weight means a smaller share", [
        ("tenants.c", "+= n_rows / t->tenants[index].weight", "+= n_rows * t->tenants[index].weight")]),
    "claim-saved": ("a tenant that was away may claim what it missed", [
        ("tenants.c", "tenant->virtual_time = fmax(tenant->virtual_time, t->virtual_time);", ";")]),
    "no-dry-block": ("prompts get nothing as long as targets leave nothing", [
        ("schedule.c", "if (rows == 0 && s.dry && n_prompt_rows == 0)", "if (false && s.dry)")]),
    "static-joins": ("a static batch is joined while it runs", [
        ("schedule.c", "if (tasks[i].running)\n            return false;\n        waited_us", "waited_us")]),
    "no-doubt": ("what the cost model has not seen is taken for known", [
        ("schedule.c", " * (1 + 2 * sl_cost_doubt(cost, all))", "")]),
    # What it says of waits and prices.
    "wait-for-nobody": ("a predicted wait takes no account of slots", [
        ("forecast.c", "if (f->n_taken + count_choices(task) > o->n_slots)", "if (false)"),
        ("forecast.c", "SL_ASSERT(f->n_taken <= f->schedule->options.n_slots);", "")]),
    "wait-without-streams": ("a predicted step does not take the time of the streams' rows", [
        ("forecast.c", "sl_step_work work = f->decoding;\n    double limit_us", "sl_step_work work = {0};\n    double limit_us")]),
    "price-tiles": ("prices of prompts behind a window count all tiles as full", [
        ("cost.c", "(uint32_t)clip((most - position) / rows, n_whole)", "0")]),
}


def compile_changed(build, commands, name, work):
    """Object files of the files that a mutation changes."""
    texts = {}
    for file, old, new in MUTATIONS[name][1]:
        text = texts.get(file) or (ENGINE / file).read_text()
        if text.count(old) != 1:
            raise LookupError(f"{name}: its text occurs {text.count(old)} times in {file}")
        texts[file] = text.replace(old, new)
    objects = []
    for file, text in texts.items():
        (work / file).write_text(text)
        command = re.sub(r" -o \S+ -c \S+$", f" -w -o {work / file}.o -c {work / file}", commands[file])
        command = re.sub(r" -M[DQF]\S*( (?!-)\S+)?", "", command).replace(" -O3 ", " -O1 ")
        subprocess.run(command, shell=True, cwd=build, check=True)
        objects.append(f"{work / file}.o")
    return objects


def link(build, program, objects, work):
    command = subprocess.run(["ninja", "-C", build, "-t", "commands", program], capture_output=True, text=True,
                             check=True).stdout.splitlines()[-1]
    out = work / Path(program).name
    command = command.replace(f" -o {program} ", f" -o {out} {' '.join(objects)} ", 1)
    subprocess.run(command, shell=True, cwd=build, check=True)
    return out


def notice(build, commands, name):
    """What noticed the mutation and said so, or None. A program that does not end has not said anything."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        objects = compile_changed(build, commands, name, work)
        for program, arguments in PROGRAMS:
            binary = link(build, program, objects, work)
            try:
                run = subprocess.run([binary, *arguments], capture_output=True, text=True,
                                     timeout=15 if program == PROGRAMS[0][0] else 120)  # the scenes take 0.1 s
            except subprocess.TimeoutExpired:
                print(f"{name}: {Path(program).name} does not end", flush=True)
                return None
            if run.returncode != 0:
                lines = (run.stdout + run.stderr).strip().splitlines()
                said = [line for line in lines if "seed " in line or "ERROR" in line or "assert" in line.lower() or "no end" in line]
                return f"{Path(program).name}: {(said or lines or ['a signal'])[0].strip()[:150]}"
    return None


def main():
    build = Path(sys.argv[1]).resolve()
    names = sys.argv[2:] or list(MUTATIONS)
    commands = {Path(c["file"]).name: c["command"] for c in json.loads((build / "compile_commands.json").read_text())
                if "/src/engine/" in str((build / c["file"]).resolve())}
    n_failed = 0
    for name in names:
        try:
            noticed = notice(build, commands, name)
        except LookupError as gone:
            noticed, name = None, str(gone)
        n_failed += noticed is None
        print(f"{name}: {noticed or 'NOTICED BY NOBODY'}", flush=True)
    print(f"[  PASSED  ] {len(names) - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
