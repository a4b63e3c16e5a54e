/* Stop strings: what of a growing answer may be shown, and where it ends. Strings are matched on the tokens' bytes, so a
 * match may begin and end anywhere inside tokens. */
#ifndef SL_ENGINE_STOP_H
#define SL_ENGINE_STOP_H

#include "base/status.h"
#include "sample/token_bytes.h"

enum { SL_MAX_STOP_STRINGS = 16, SL_MAX_STOP_BYTES = 1024 /* of one string */ };

/* State of one answer. NULL stands for an engine without token bytes: nothing to show, nothing to match. */
typedef struct sl_stop sl_stop;

/* Opens the state of an answer that strings (copied; none is fine) end. table must outlive it; NULL with no strings gives
 * *out = NULL. SL_ERR_ARGUMENT for an empty string or strings without a table, SL_ERR_LIMIT for too many or too long
 * ones, SL_ERR_NOMEM. Nothing is allocated later. */
SL_WARN_UNUSED sl_status sl_stop_open(const sl_bytes_list *strings, const sl_token_bytes *table, sl_stop **out,
                                      sl_err *err);
/* A fresh state with the same strings, for another answer to the same request. SL_ERR_NOMEM. */
SL_WARN_UNUSED sl_status sl_stop_clone(const sl_stop *stop, sl_stop **out, sl_err *err);
void sl_stop_close(sl_stop *stop);

/* Adds a token. *visible = bytes that can be shown from now on: held ones and new ones, as far as no stop string that
 * has begun can still take them in; valid until the next call. Returns whether a stop string became complete. *visible
 * then ends where that string begins, which is never shown, and the answer is over. Of several strings the one that ends
 * first counts, of those that end there the longest. may_end false: strings that become complete in this token count as
 * ordinary text (min_tokens). O(bytes), times the number of strings. */
SL_WARN_UNUSED bool sl_stop_push(sl_stop *stop, uint32_t token, bool may_end, sl_bytes *visible);

/* Ends an answer that no stop string ended: *visible = the bytes that were still held back; none after a match. */
void sl_stop_finish(sl_stop *stop, sl_bytes *visible);

/* Index of the string that ended the answer; -1: none did. */
int32_t sl_stop_matched(const sl_stop *stop);

#endif
