#include "engine/tenants.h"

#include <math.h>
#include <stdlib.h>

void sl_tenants_close(sl_tenants *t)
{
    free(t->tenants);
    *t = (sl_tenants){0};
}

/* The system's time follows the least served tenant with work; without any it stays. */
static void follow(sl_tenants *t)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < t->n_tenants; i++)
        if (t->tenants[i].n_active > 0)
            least = fmin(least, t->tenants[i].virtual_time);
    if (least < INFINITY)
        t->virtual_time = fmax(t->virtual_time, least);
}

/* Index of the tenant, or of a place for it; UINT32_MAX without memory. */
static uint32_t find_place(sl_tenants *t, uint64_t id)
{
    uint32_t place = UINT32_MAX;
    for (uint32_t i = 0; i < t->n_tenants; i++) {
        const sl_tenant *tenant = &t->tenants[i];
        if (tenant->weight > 0 && tenant->id == id)
            return i;
        if (tenant->n_active == 0 && tenant->virtual_time <= t->virtual_time)
            place = i;
    }
    if (place == UINT32_MAX && t->n_tenants == t->capacity) {
        uint32_t capacity = SL_MAX(2 * t->capacity, 8);
        sl_tenant *more = realloc(t->tenants, capacity * sizeof *more);
        if (!more)
            return UINT32_MAX;
        t->tenants = more;
        t->capacity = capacity;
    }
    if (place == UINT32_MAX)
        place = t->n_tenants++;
    t->tenants[place] = (sl_tenant){.id = id};
    return place;
}

sl_status sl_tenants_enter(sl_tenants *t, uint64_t id, double weight, uint32_t *index, sl_err *err)
{
    if (!(weight > 0) || !isfinite(weight))
        SL_FAIL(err, SL_ERR_ARGUMENT, "a tenant's weight must be more than 0");
    follow(t);
    uint32_t place = find_place(t, id);
    if (place == UINT32_MAX)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for one more tenant");
    sl_tenant *tenant = &t->tenants[place];
    tenant->weight = weight;
    if (tenant->n_active++ == 0)
        tenant->virtual_time = fmax(tenant->virtual_time, t->virtual_time);
    *index = place;
    return SL_OK;
}

void sl_tenants_leave(sl_tenants *t, uint32_t index)
{
    SL_ASSERT(index < t->n_tenants && t->tenants[index].n_active > 0);
    follow(t); /* while it still counts: what it did last was served by then */
    t->tenants[index].n_active--;
}

void sl_tenants_charge(sl_tenants *t, uint32_t index, uint32_t n_rows)
{
    SL_ASSERT(index < t->n_tenants);
    t->tenants[index].virtual_time += n_rows / t->tenants[index].weight;
    follow(t);
}

double sl_tenants_lead(const sl_tenants *t, uint32_t index)
{
    return fmax(0, t->tenants[index].virtual_time - t->virtual_time);
}
