/* Who was served how much: weighted fair shares between tenants, by tokens.
 *
 * Start-time fair queueing (Goyal, Vin and Cheng 1997): each tenant has a virtual time, the tokens it was served divided
 * by its weight; who has the least is next. The system's virtual time is that of the least served tenant with work. A
 * tenant that comes back starts there at the earliest: it can't save up a claim while it is away, nor is it charged for
 * what it got while nobody else wanted anything. Over any time in which two tenants both have work, the difference of
 * their virtual times stays within what one step serves each of them. */
#ifndef SL_ENGINE_TENANTS_H
#define SL_ENGINE_TENANTS_H

#include "base/status.h"

typedef struct sl_tenant {
    uint64_t id;
    double weight;
    double virtual_time; /* tokens served / weight */
    double tag;          /* of its next request in the order being made (schedule.c) */
    uint32_t n_active;   /* requests that wait or run */
} sl_tenant;

typedef struct sl_tenants {
    sl_tenant *tenants; /* indices stay valid while the tenant has requests */
    uint32_t n_tenants, capacity;
    double virtual_time; /* of the system; never falls */
} sl_tenants;

void sl_tenants_close(sl_tenants *tenants); /* of memory; a zeroed struct is an empty set */

/* A request of tenant id begins: *index stands for the tenant until as many requests have ended. weight (more than 0)
 * counts from now on. A tenant without requests is forgotten as soon as its place is wanted and it is not ahead of the
 * system, so the memory is that of the active tenants and those ahead. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_tenants_enter(sl_tenants *tenants, uint64_t id, double weight, uint32_t *index,
                                          sl_err *err);
void sl_tenants_leave(sl_tenants *tenants, uint32_t index);

/* Charges the tenant for rows that a step computed for it. */
void sl_tenants_charge(sl_tenants *tenants, uint32_t index, uint32_t n_rows);

/* Tokens by which the tenant was served more than the least served active one, each by its weight. */
double sl_tenants_lead(const sl_tenants *tenants, uint32_t index);

#endif
