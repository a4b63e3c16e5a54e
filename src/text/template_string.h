/* String operations that filters and methods share. */
#ifndef SL_TEXT_TEMPLATE_STRING_H
#define SL_TEXT_TEMPLATE_STRING_H

#include "text/template_value.h"

enum { SL_TSTRIP_LEFT = 1, SL_TSTRIP_RIGHT = 2 };

/* Python's strip, lstrip, rstrip; chars is a string, or none for whitespace. */
SL_WARN_UNUSED sl_status sl_tstring_strip(sl_trun *run, const sl_tstring *s, sl_tvalue chars, unsigned sides,
                                          sl_tvalue *out);

typedef enum sl_tcase { SL_TCASE_UPPER, SL_TCASE_LOWER, SL_TCASE_CAPITAL, SL_TCASE_TITLE } sl_tcase;

/* Changes the case of ASCII letters; SL_ERR_UNSUPPORTED for a text with other characters than ASCII. */
SL_WARN_UNUSED sl_status sl_tstring_case(sl_trun *run, const sl_tstring *s, sl_tcase to, sl_tvalue *out);

/* Replaces the first count (all when negative) places of from by to. */
SL_WARN_UNUSED sl_status sl_tstring_replace(sl_trun *run, const sl_tstring *s, const sl_tstring *from,
                                            const sl_tstring *to, int64_t count, sl_tvalue *out);

/* Python's split: at sep, or at runs of whitespace when it is NULL; at most max times when max is not negative. */
SL_WARN_UNUSED sl_status sl_tstring_split(sl_trun *run, const sl_tstring *s, const sl_tstring *sep, int64_t max,
                                          sl_tvalue *out);

/* Python's splitlines. */
SL_WARN_UNUSED sl_status sl_tstring_lines(sl_trun *run, const sl_tstring *s, sl_tvalue *out);

#endif
