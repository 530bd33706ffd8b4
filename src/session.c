/*-------------------------------------------------------------------------
 *
 * session.c
 *	  What the SQL-callable functions share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "accessreq.h"
#include "answer.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "idset.h"
#include "job.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "row.h"
#include "session.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "storage/ipc.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "workers.h"

Oid
session_resolve(const char *name)
{
	const char *meant = name != NULL ? name : accessreq_server;

	/* what was renamed is told from what never was */
	if (meant != NULL && meant[0] != '\0' && !tenant_is_server(meant))
	{
		SPI_connect();
		job_check_has_server(meant);
		SPI_finish();
	}
	return tenant_resolve(name, GetUserId());
}

Session *
session_open(FunctionCallInfo fcinfo, int argno, MemoryContext parent)
{
	const char *name = PG_ARGISNULL(argno) ? NULL : NameStr(*PG_GETARG_NAME(argno));
	Oid			userid = GetUserId();
	Oid			serverid = session_resolve(name);
	MemoryContext cxt = AllocSetContextCreate(parent, "accessreq session",
											  ALLOCSET_SMALL_SIZES);
	Session    *session = MemoryContextAllocZero(cxt, sizeof(Session));

	session->cxt = cxt;
	session->tenant = tenant_open(serverid, userid, cxt);
	session->calls = call_open(cxt);
	return session;
}

void
session_close(Session *session)
{
	MemoryContextDelete(session->cxt);
}

char *
session_utf8(const char *text)
{
	/* always a copy: the caller may keep it longer than the argument */
	return pstrdup(pg_server_to_any(text, strlen(text), PG_UTF8));
}

char *
session_text_arg(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return session_utf8(text_to_cstring(PG_GETARG_TEXT_PP(argno)));
}

char *
session_jsonb_arg(FunctionCallInfo fcinfo, int argno)
{
	Jsonb	   *value;

	if (PG_ARGISNULL(argno))
		return NULL;
	value = PG_GETARG_JSONB_P(argno);
	return session_utf8(JsonbToCString(NULL, &value->root, VARSIZE(value)));
}

void
session_require_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

Jsonb *
session_object_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	Jsonb	   *value;

	session_require_arg(fcinfo, argno, name);
	value = PG_GETARG_JSONB_P(argno);
	if (!JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not a JSON object", name)));
	return value;
}

static void
refuse_empty_id(const char *id)
{
	if (id[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an id is empty")));
}

char *
session_id_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	char	   *id;

	session_require_arg(fcinfo, argno, name);
	id = session_text_arg(fcinfo, argno);
	refuse_empty_id(id);
	return id;
}

char **
session_ids_arg(FunctionCallInfo fcinfo, int argno, int *nids)
{
	IdSet	   *seen;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	char	  **ids;

	*nids = 0;
	if (PG_ARGISNULL(argno))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	seen = idset_create(CurrentMemoryContext, n);
	ids = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		char	   *id;

		if (nulls[i])
			continue;
		id = session_utf8(TextDatumGetCString(elements[i]));
		refuse_empty_id(id);
		if (idset_add(seen, id, strlen(id)))
			ids[(*nids)++] = id;
	}
	idset_free(seen);
	return ids;
}

int64
session_max_rows_arg(FunctionCallInfo fcinfo, int argno)
{
	int64		max;

	if (PG_ARGISNULL(argno))
		return PG_INT64_MAX;
	max = PG_GETARG_INT64(argno);
	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must not be negative")));
	return max;
}

void
session_warn_without_worker(const char *message)
{
	bool		starting;
	char	   *why;

	if (workers_pid() != 0)
		return;
	why = workers_why_not(&starting);
	if (!starting)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("%s", message),
				 errdetail_internal("%s", why),
				 workers_may_start() ? errhint("SELECT accessreq.start_worker() starts one.") : 0));
}

void
session_check_may_commit(FunctionCallInfo fcinfo, const char *procedure, const char *why)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic;

	if (atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block, a function or an EXCEPTION block",
						procedure),
				 errdetail("%s", why),
				 errhint("CALL it on its own, with autocommit on.")));
}

Datum
session_text_datum(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/*
 * Tuples are made by position, and for whatever the catalogs say by now: a
 * column more would be read from beyond the values, one of another type from
 * what is no pointer.  Columns that were dropped stay in a type for ever.
 */
static void
check_columns(FunctionCallInfo fcinfo, TupleDesc desc, const Oid *types, int n)
{
	int			live = 0;
	bool		same = true;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped)
			continue;
		same = same && live < n && column->atttypid == types[live];
		live++;
	}
	if (!same || live != n)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("function %s has other result columns than its library returns",
						format_procedure(fcinfo->flinfo->fn_oid)),
				 errhint("Undo an ALTER TYPE of its result type; after an update of the library, run ALTER EXTENSION accessreq UPDATE.")));
}

/* A tuple of the live columns' values, as check_columns() has found them. */
static HeapTuple
form_row(TupleDesc desc, const Datum *values, const bool *nulls)
{
	Datum	   *all = palloc0(sizeof(Datum) * desc->natts);
	bool	   *none = palloc(sizeof(bool) * desc->natts);
	HeapTuple	tuple;
	int			live = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		none[i] = TupleDescAttr(desc, i)->attisdropped || nulls[live];
		if (!TupleDescAttr(desc, i)->attisdropped)
			all[i] = values[live++];
	}
	tuple = heap_form_tuple(desc, all, none);
	pfree(all);
	pfree(none);
	return tuple;
}

void
session_begin_rows(FunctionCallInfo fcinfo, const Oid *types, int n)
{
	InitMaterializedSRF(fcinfo, 0);
	check_columns(fcinfo, ((ReturnSetInfo *) fcinfo->resultinfo)->setDesc, types, n);
}

Datum
session_one_row(FunctionCallInfo fcinfo, const Oid *types, int n, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	check_columns(fcinfo, desc, types, n);
	return HeapTupleGetDatum(form_row(BlessTupleDesc(desc), values, nulls));
}

void
session_put_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HeapTuple	tuple = form_row(rsinfo->setDesc, values, nulls);

	tuplestore_puttuple(rsinfo->setResult, tuple);
	heap_freetuple(tuple);
}

const JsonValue *
session_parse(const char *text)
{
	const char *problem;
	const JsonValue *value = json_parse(text, strlen(text), CurrentMemoryContext, &problem);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the value cannot be sent as JSON"),
				 errdetail("%s", problem)));
	return value;
}

/* The write that is under way, for its line in the log. */
typedef struct Write
{
	const Session *session;
	const char *function;
	const char *const *ids;
	int			nids;
	Call	   *call;
} Write;

/* All of them: who looks for one must find it. */
static char *
list_ids(const char *const *ids, int nids)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < nids; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "", api_error_text(ids[i]));
	return buf.len > 0 ? buf.data : "none";
}

/* A role that was dropped meanwhile must not make the log line fail. */
static char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("%u", role);
}

static void
log_write(const Write *w, const char *outcome, const char *tracking_id)
{
	if (!accessreq_log_writes)
		return;
	ereport(LOG,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("accessreq.%s by role \"%s\" on server \"%s\": %s; ids: %s; tracking id: %s",
					w->function, role_name(w->session->tenant->userid),
					w->session->tenant->server, outcome, list_ids(w->ids, w->nids),
					tracking_id && tracking_id[0] ? tracking_id : "none"),
			 errhidestmt(true)));
}

/*
 * The statement was cancelled, or the session is ended: what has left may be
 * carried out, and must not be missing in the log.
 */
static void
log_interrupted(int code, Datum arg)
{
	Write	   *w = (Write *) DatumGetPointer(arg);

	if (w->call != NULL && call_was_sent(w->call))
		log_write(w, "interrupted, may have been carried out", NULL);
}

Call *
session_write(const Session *session, const char *function,
			  const char *const *ids, int nids, const CallSpec *spec)
{
	Write		w = {session, function, ids, nids, NULL};
	const ApiError *error;

	SPI_connect();
	job_check_origin(session->tenant->server);
	SPI_finish();
	PG_ENSURE_ERROR_CLEANUP(log_interrupted, PointerGetDatum(&w));
	{
		w.call = call_start(session->calls, spec);
		call_finish(w.call);
	}
	PG_END_ENSURE_ERROR_CLEANUP(log_interrupted, PointerGetDatum(&w));
	error = call_error(w.call);
	log_write(&w,
			  error == NULL ? "accepted" :
			  error->outcome == API_REFUSED || error->outcome == API_DENIED ? "not accepted" :
			  error->outcome == API_LOST || call_was_sent(w.call) ? "answer lost" : "not accepted",
			  /* of an answer that failed only what its error lets through */
			  error ? error->tracking_id :
			  call_response(w.call) ? call_response(w.call)->tracking_id : NULL);
	return w.call;
}
