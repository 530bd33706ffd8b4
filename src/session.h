/*-------------------------------------------------------------------------
 *
 * session.h
 *	  What the SQL-callable functions share: the tenant that is meant, the
 *	  calls of one statement, and arguments as UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_SESSION_H
#define ACCESSREQ_SESSION_H

#include "call.h"
#include "fmgr.h"
#include "json.h"
#include "tenant.h"
#include "utils/jsonb.h"

typedef struct Session
{
	const Tenant *tenant;
	CallSet    *calls;
	MemoryContext cxt;
} Session;

/*
 * The server meant by "name", as tenant_resolve() finds it for the current role;
 * one that was renamed, or dropped, with its rows still here is told as that.
 */
extern Oid	session_resolve(const char *name);

/*
 * Open a session for the current role, in a context under "parent": the
 * transaction's for an immediate call, so that a subtransaction's abort takes
 * it down too.  "argno" is the argument "server"; NULL means the default.
 */
extern Session *session_open(FunctionCallInfo fcinfo, int argno, MemoryContext parent);
extern void session_close(Session *session);

/* An argument in UTF-8; NULL where it is null. */
extern char *session_text_arg(FunctionCallInfo fcinfo, int argno);
extern char *session_jsonb_arg(FunctionCallInfo fcinfo, int argno);
extern char *session_utf8(const char *text);

/* An object of JSON, and an id; raise 22004 for null, 22023 for what is none. */
extern Jsonb *session_object_arg(FunctionCallInfo fcinfo, int argno, const char *name);
extern char *session_id_arg(FunctionCallInfo fcinfo, int argno, const char *name);

/* Ids: nulls skipped, each once, in their order.  Raises 22023 for an empty one. */
extern char **session_ids_arg(FunctionCallInfo fcinfo, int argno, int *nids);

/* Raises 22004 where an argument that is needed is null. */
extern void session_require_arg(FunctionCallInfo fcinfo, int argno, const char *name);

/* How many rows at most; null: all.  Raises 22023 for less than none. */
extern int64 session_max_rows_arg(FunctionCallInfo fcinfo, int argno);

/* A warning with the reason where no worker runs, and none will in a moment. */
extern void session_warn_without_worker(const char *message);

/* Raises 25001 wherever a procedure could not commit. */
extern void session_check_may_commit(FunctionCallInfo fcinfo, const char *procedure,
									 const char *why);

/* A text in the server's encoding as a Datum, or null. */
extern Datum session_text_datum(const char *text, bool *isnull);

/*
 * Begin a result of rows with these columns, and put one.  Raises 42804 where
 * the catalogs say that the function returns others: a type that somebody
 * altered, a script of another version than the library.
 */
extern void session_begin_rows(FunctionCallInfo fcinfo, const Oid *types, int n);
extern void session_put_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

/* The same for a result of one row. */
extern Datum session_one_row(FunctionCallInfo fcinfo, const Oid *types, int n,
							 Datum *values, bool *nulls);

/* Parse a body of JSON; raises 22023. */
extern const JsonValue *session_parse(const char *text);

/*
 * Run a call that changes something, to its end, and write its line in the log
 * where log_writes is on; one too where the statement is cancelled or the
 * session ended after it has left.  The caller looks at call_error().  Raises
 * 55000 where the job of the server belongs to another database.
 */
extern Call *session_write(const Session *session, const char *function,
						   const char *const *ids, int nids, const CallSpec *spec);

#endif							/* ACCESSREQ_SESSION_H */
