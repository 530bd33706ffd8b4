/*-------------------------------------------------------------------------
 *
 * jsonbtext.h
 *	  Parts of a jsonb as JSON text, exactly, for building another from them.
 *
 * PostgreSQL's functions that build jsonb change between its versions; text and
 * jsonb_in() do not.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_JSONBTEXT_H
#define ACCESSREQ_JSONBTEXT_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* A key, palloc'd. */
extern char *jsonbtext_key(const JsonbValue *key);

/* Append a value as text; and "key": with a comma before it but for the first. */
extern void jsonbtext_append(StringInfo buf, JsonbValue *value);
extern void jsonbtext_append_key(StringInfo buf, const JsonbValue *key);

#endif							/* ACCESSREQ_JSONBTEXT_H */
