/*-------------------------------------------------------------------------
 *
 * json.h
 *	  JSON as the tenant sends it: reading values, and cutting a page of
 *	  statuses into its items without parsing them.
 *
 * The one user of cJSON.  Text is UTF-8 throughout; conversion to the
 * server's encoding is the business of whoever makes Datums.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_JSON_H
#define ACCESSREQ_JSON_H

#include "postgres.h"

/* A value in a parsed document; valid as long as the document's context. */
typedef struct cJSON JsonValue;

/*
 * One element of a page, still as bytes of the page.  json_cut_page() sets
 * all of it; start points into the page.
 */
typedef struct JsonSpan
{
	char	   *start;			/* first byte of the element, not terminated */
	size_t		len;
	const char *id;				/* value of the top-level string key asked
								 * for, raw bytes between its quotes, or NULL;
								 * NULL too where it, or any top-level key,
								 * holds an escape */
	size_t		id_len;
	int			replaced;		/* U+0000 and lone surrogates that were
								 * replaced in place, see json_clean() */
	const char *problem;		/* what the cut found wrong, or NULL; a
								 * constant string.  json_parse() finds the
								 * rest: what both accept PostgreSQL accepts */
} JsonSpan;

/*
 * Is its id one that can be stored and sent?  Where there is a problem its bytes
 * may be no UTF-8.
 */
extern bool json_has_id(const JsonSpan *span);

/*
 * Parse a document.  Returns its root, or NULL with *problem set to a constant
 * string.  Strict where cJSON is not: UTF-8 is verified, no byte may be NUL,
 * nothing may follow the value.  \u0000 must have been replaced before
 * (json_clean).  The tree is freed when "owner" is reset or deleted.
 */
extern const JsonValue *json_parse(const char *text, size_t len,
								   MemoryContext owner, const char **problem);

/*
 * Replace \u0000 and lone surrogate escapes by \ufffd in place, or by \u003f where
 * the database's encoding may lack that; their number.
 */
extern int	json_clean(char *text, size_t len);

/* Is it valid UTF-8 without a NUL byte? */
extern bool json_valid_utf8(const char *text, size_t len);

/*
 * Cut a page, a JSON array, into its elements.  Returns false with *problem
 * set (a constant string) where the page as a whole is no array: truncated,
 * HTML, an object.  Elements are cleaned as by json_clean; an element that is
 * not acceptable JSON (see JsonSpan.problem) does not fail the page.
 * "id_key" is the top-level key whose string value is wanted of each element.
 * *items is palloc'd in the current memory context.
 */
extern bool json_cut_page(char *page, size_t len, const char *id_key,
						  JsonSpan **items, int *nitems, const char **problem);

/* Types; all take NULL, and answer false. */
extern bool json_is_object(const JsonValue *v);
extern bool json_is_array(const JsonValue *v);
extern bool json_is_string(const JsonValue *v);
extern bool json_is_null(const JsonValue *v);

/* Members and elements; NULL where there is none or "v" is not the container. */
extern const JsonValue *json_get(const JsonValue *v, const char *key);
extern const JsonValue *json_first(const JsonValue *v); /* of array or object */
extern const JsonValue *json_next(const JsonValue *v);
extern const char *json_key(const JsonValue *v);	/* of an object's member */
extern int	json_size(const JsonValue *v);

/*
 * Has the object every key of the other?  And, with "values", the same value under
 * each, where of objects within it may have more?  A key that is null in "part"
 * may be missing.  False where one of them is no object.
 */
extern bool json_holds(const JsonValue *whole, const JsonValue *part, bool values);

/*
 * Scalars.  json_string is the text of a string, else NULL; json_get_string
 * the same of a member.  json_get_bool is -1 where there is no boolean.
 * json_get_int64 is false where there is no integer that int64 holds exactly
 * (beyond 2^53 cJSON has lost digits already: false).
 */
extern const char *json_string(const JsonValue *v);
extern const char *json_get_string(const JsonValue *v, const char *key);
extern int	json_get_bool(const JsonValue *v, const char *key);
extern bool json_get_int64(const JsonValue *v, const char *key, int64 *result);

/* The value as JSON text, unformatted, palloc'd (UTF-8). */
extern char *json_print(const JsonValue *v);

/* Append a JSON string literal of the UTF-8 text, quotes included. */
struct StringInfoData;
extern void json_append_string(struct StringInfoData *buf, const char *text);

#endif							/* ACCESSREQ_JSON_H */
