/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  What the tenant says to a call that changes something.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ANSWER_H
#define ACCESSREQ_ANSWER_H

#include "call.h"
#include "json.h"

/* The body of an answer; NULL with *problem set where it is no JSON. */
extern const JsonValue *answer_parse(Call *call, const char **problem);

/* The same as jsonb, of what was accepted: {} where it is empty. */
extern Datum answer_jsonb(Call *call);

/*
 * The configuration that was read.  Raises 08P01 where the answer is none, but a
 * gateway's page, say; and where jsonb cannot hold it, because it is put back.
 */
extern Datum answer_config(Call *call, const Tenant *tenant);

/* The error of one that is none, or NULL. */
extern const ApiError *answer_config_error(Call *call, const Tenant *tenant);

/* UTF-8 JSON as jsonb, "?" for what the database's encoding lacks. */
extern Datum answer_lossy_jsonb(const JsonValue *value);

/* The access requests that the answer to a create names, and their number. */
extern const char **answer_created(const JsonValue *answer, int *n);

/*
 * A line for the list of errors in an answer that accepts a call, of which nothing
 * but that there is a list is documented: they are shown and not understood.
 */
extern char *answer_listed_errors(const Call *call, const JsonValue *list);

/* Message, detail and hint of an error in one, for a column; NULL for none. */
extern char *answer_error_line(const ApiError *error);

#endif							/* ACCESSREQ_ANSWER_H */
