/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  SQL-callable: the calls that change something, and pulls.
 *
 * Datum in, call, Datum out.  What is sent is sent at once; a rollback does
 * not take it back, and the comments of the functions say so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "api.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "job.h"
#include "lib/stringinfo.h"
#include "loop.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "row.h"
#include "session.h"
#include "store.h"
#include "token.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How often CALL sync says how far it is. */
#define NOTICE_INTERVAL_US USECS_PER_SEC

PG_FUNCTION_INFO_V1(accessreq_create);
PG_FUNCTION_INFO_V1(accessreq_grant_request);
PG_FUNCTION_INFO_V1(accessreq_revoke_request);
PG_FUNCTION_INFO_V1(accessreq_cancel);
PG_FUNCTION_INFO_V1(accessreq_cancel_many);
PG_FUNCTION_INFO_V1(accessreq_close);
PG_FUNCTION_INFO_V1(accessreq_refresh);
PG_FUNCTION_INFO_V1(accessreq_sync);

static void
put_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static Datum
text_or_null(const char *utf8, bool *isnull)
{
	*isnull = utf8 == NULL;
	/* of what was accepted: no error over a character that is lacking */
	return utf8 ? CStringGetTextDatum(api_error_convert(utf8, strlen(utf8))) : (Datum) 0;
}

static Datum
server_text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/* ---------------------------------------------------------------------- create */

/* One row of create(): a person and an item. */
static void
put_created(FunctionCallInfo fcinfo, const char *person, const JsonValue *item,
			const JsonValue *tracking, bool existing)
{
	Datum		values[6] = {0};
	bool		nulls[6] = {0};
	const JsonValue *ids = json_get(tracking, "accessRequestIds");
	int64		hash;

	values[0] = text_or_null(person, &nulls[0]);
	values[1] = text_or_null(json_get_string(item, "type"), &nulls[1]);
	values[2] = text_or_null(json_get_string(item, "id"), &nulls[2]);
	nulls[3] = !json_is_array(ids);
	if (!nulls[3])
	{
		ArrayBuildState *state = initArrayResult(TEXTOID, CurrentMemoryContext, false);

		for (const JsonValue *id = json_first(ids); id != NULL; id = json_next(id))
		{
			if (json_is_string(id))
				accumArrayResult(state,
								 CStringGetTextDatum(api_error_convert(json_string(id),
																	   strlen(json_string(id)))),
								 false, TEXTOID, CurrentMemoryContext);
		}
		values[3] = makeArrayResult(state, CurrentMemoryContext);
	}
	nulls[4] = !json_get_int64(tracking, "attributesHash", &hash);
	if (!nulls[4])
		values[4] = Int64GetDatum(hash);
	nulls[5] = tracking == NULL;
	values[5] = BoolGetDatum(existing);
	put_row(fcinfo, values, nulls);
}

/* newRequests or existingRequests of the answer: their number. */
static int
put_tracked(FunctionCallInfo fcinfo, const JsonValue *list, bool existing)
{
	int			n = 0;

	for (const JsonValue *t = json_first(list); t != NULL; t = json_next(t))
	{
		const JsonValue *items = json_get(t, "requestedItemsDetails");
		const char *person = json_get_string(t, "requestedFor");

		for (const JsonValue *i = json_first(items); i != NULL; i = json_next(i), n++)
			put_created(fcinfo, person, i, t, existing);
		if (json_size(items) == 0)
		{
			put_created(fcinfo, person, NULL, t, existing);
			n++;
		}
	}
	return n;
}

/* The answer names nothing (old tenants): a row for each that was sent. */
static void
put_sent(FunctionCallInfo fcinfo, const JsonValue *body)
{
	const JsonValue *combined = json_get(body, "requestedForWithRequestedItems");

	for (const JsonValue *c = json_first(combined); c != NULL; c = json_next(c))
	{
		const JsonValue *items = json_get(c, "requestedItems");

		for (const JsonValue *i = json_first(items); i != NULL; i = json_next(i))
			put_created(fcinfo, json_get_string(c, "identityId"), i, NULL, false);
	}
	for (const JsonValue *p = json_first(json_get(body, "requestedFor")); p != NULL; p = json_next(p))
	{
		const JsonValue *items = json_get(body, "requestedItems");

		for (const JsonValue *i = json_first(items); i != NULL; i = json_next(i))
			put_created(fcinfo, json_string(p), i, NULL, false);
	}
}

/* Whom a request is for: the ids that its line in the log names. */
static const char *const *
people_of(const JsonValue *body, int *n)
{
	const JsonValue *combined = json_get(body, "requestedForWithRequestedItems");
	const JsonValue *list = combined ? combined : json_get(body, "requestedFor");
	const char **people = palloc(sizeof(char *) * Max(json_size(list), 1));

	*n = 0;
	for (const JsonValue *p = json_first(list); p != NULL; p = json_next(p))
	{
		const char *id = combined ? json_get_string(p, "identityId") : json_string(p);

		if (id != NULL)
			people[(*n)++] = id;
	}
	return people;
}

/*
 * create(request jsonb, server name): submit an access request.  Raises 22023
 * for a body that breaks a documented rule, else as doc/errors.md says.
 */
Datum
accessreq_create(PG_FUNCTION_ARGS)
{
	char	   *text;
	const JsonValue *body,
			   *answer;
	Session    *session;
	CallSpec	spec;
	Call	   *call;
	HttpResponse *response;
	const char *problem;
	const char *const *people;
	int			npeople;

	session_require_arg(fcinfo, 0, "request");
	text = session_jsonb_arg(fcinfo, 0);
	body = session_parse(text);
	api_check_create(body);
	InitMaterializedSRF(fcinfo, 0);
	session = session_open(fcinfo, 1, CurTransactionContext);
	api_create(&spec, session->tenant, text, body);
	people = people_of(body, &npeople);
	call = session_write(session, "create", people, npeople, &spec);
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	response = call_response(call);
	json_clean(response->body, response->body_len);
	answer = json_parse(response->body, response->body_len, CurrentMemoryContext, &problem);
	if (put_tracked(fcinfo, json_get(answer, "newRequests"), false) +
		put_tracked(fcinfo, json_get(answer, "existingRequests"), true) == 0)
		put_sent(fcinfo, body);
	session_close(session);
	return (Datum) 0;
}

/* ---------------------------------------------- bodies, nothing is sent */

static void
append_date(StringInfo buf, const char *key, FunctionCallInfo fcinfo, int argno)
{
	TimestampTz t;
	struct pg_tm tm;
	fsec_t		fsec;

	if (PG_ARGISNULL(argno))
		return;
	t = PG_GETARG_TIMESTAMPTZ(argno);
	if (TIMESTAMP_NOT_FINITE(t) || timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0 ||
		tm.tm_year < 1 || tm.tm_year > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("%s is outside the range of dates that the tenant knows", key)));
	appendStringInfo(buf, ",\"%s\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", key,
					 tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
					 fsec / 1000);
}

static void
append_string_member(StringInfo buf, const char *key, const char *value)
{
	if (value == NULL || value[0] == '\0')
		return;
	appendStringInfo(buf, ",\"%s\":", key);
	json_append_string(buf, value);
}

/* A body for these people and one item, with the documented rules checked. */
static Datum
request_body(char **people, int npeople, const char *request_type, const char *item)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"requestType\":\"%s\",\"requestedFor\":[", request_type);
	for (int i = 0; i < npeople; i++)
	{
		if (i > 0)
			appendStringInfoChar(&buf, ',');
		json_append_string(&buf, people[i]);
	}
	appendStringInfo(&buf, "],\"requestedItems\":[%s]}", item);
	api_check_create(session_parse(buf.data));
	return row_jsonb(buf.data, buf.len);
}

static void
begin_item(StringInfo buf, const char *type, const char *id, const char *comment)
{
	initStringInfo(buf);
	appendStringInfoString(buf, "{\"type\":");
	json_append_string(buf, type);
	appendStringInfoString(buf, ",\"id\":");
	json_append_string(buf, id);
	append_string_member(buf, "comment", comment);
}

/*
 * grant_request(requested_for text[], item_type, item_id, comment, start_date,
 * remove_date, client_metadata jsonb): bodies for create().
 */
Datum
accessreq_grant_request(PG_FUNCTION_ARGS)
{
	StringInfoData item;
	char	  **people;
	int			npeople;
	int			per;
	char	   *type;

	session_require_arg(fcinfo, 1, "item_type");
	session_require_arg(fcinfo, 2, "item_id");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	people = session_ids_arg(fcinfo, 0, &npeople);
	type = session_text_arg(fcinfo, 1);
	begin_item(&item, type, session_text_arg(fcinfo, 2), session_text_arg(fcinfo, 3));
	append_date(&item, "startDate", fcinfo, 4);
	append_date(&item, "removeDate", fcinfo, 5);
	if (!PG_ARGISNULL(6))
		appendStringInfo(&item, ",\"clientMetadata\":%s", session_jsonb_arg(fcinfo, 6));
	appendStringInfoChar(&item, '}');
	per = strcmp(type, "ENTITLEMENT") == 0 ? API_MAX_IDENTITIES : Max(npeople, 1);
	for (int i = 0; i < npeople; i += per)
	{
		bool		isnull = false;
		Datum		body = request_body(people + i, Min(per, npeople - i), "GRANT_ACCESS", item.data);

		put_row(fcinfo, &body, &isnull);
	}
	return (Datum) 0;
}

/* revoke_request(requested_for, item_type, item_id, comment, remove_date) */
Datum
accessreq_revoke_request(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"requested_for", "item_type", "item_id", "comment"};
	StringInfoData item;
	char	   *person;

	for (int i = 0; i < lengthof(names); i++)
		session_require_arg(fcinfo, i, names[i]);
	person = session_text_arg(fcinfo, 0);
	begin_item(&item, session_text_arg(fcinfo, 1), session_text_arg(fcinfo, 2),
			   session_text_arg(fcinfo, 3));
	append_date(&item, "removeDate", fcinfo, 4);
	appendStringInfoChar(&item, '}');
	return request_body(&person, 1, "REVOKE_ACCESS", item.data);
}

/* ---------------------------------------------------------------------- cancel */

/* cancel(access_request_id text, comment text, server name) */
Datum
accessreq_cancel(PG_FUNCTION_ARGS)
{
	char	   *id;
	char	   *comment;
	Session    *session;
	CallSpec	spec;
	Call	   *call;
	Datum		answer;

	session_require_arg(fcinfo, 0, "access_request_id");
	id = session_text_arg(fcinfo, 0);
	comment = session_text_arg(fcinfo, 1);
	if (id[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an id is empty")));
	api_check_comment(comment);
	session = session_open(fcinfo, 2, CurTransactionContext);
	api_cancel(&spec, session->tenant, id, comment);
	call = session_write(session, "cancel", (const char *const *) &id, 1, &spec);
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	answer = session_answer(&spec, call, true);
	session_close(session);
	return answer;
}

/* --------------------------------------------- many ids: an outcome for each */

typedef struct Batches
{
	FunctionCallInfo fcinfo;
	Session    *session;
	const char *function;
	const char *const *ids;
	int			nids;
	int			per;			/* ids in one call */
	bool		with_job;		/* is there a column for the job's id? */
} Batches;

typedef void (*MakeBatch) (CallSpec *spec, Batches *b, const char *const *ids, int n, void *arg);

static const char *
outcome_name(const ApiError *error)
{
	if (error == NULL)
		return "accepted";
	switch (error->outcome)
	{
		case API_REFUSED:
			return "failed";
		case API_LOST:
			return "unknown";
		default:
			return "not_sent";
	}
}

static void
put_outcomes(Batches *b, int first, int n, const char *outcome, const char *error,
			 const char *job)
{
	for (int i = first; i < first + n; i++)
	{
		Datum		values[4] = {0};
		bool		nulls[4] = {0};

		values[0] = text_or_null(b->ids[i], &nulls[0]);
		values[1] = CStringGetTextDatum(outcome);
		values[2] = server_text_or_null(error, &nulls[2]);
		values[3] = text_or_null(job, &nulls[3]);
		put_row(b->fcinfo, values, nulls);
	}
}

/* Message, detail and hint in one, for a column. */
static char *
error_line(const ApiError *error)
{
	StringInfoData buf;

	if (error == NULL)
		return NULL;
	initStringInfo(&buf);
	appendStringInfoString(&buf, error->message);
	if (error->detail != NULL)
		appendStringInfo(&buf, ". %s", error->detail);
	if (error->hint != NULL)
		appendStringInfo(&buf, "%s %s", error->detail ? "" : ".", error->hint);
	return buf.data;
}

/*
 * What the answer to a close says: the job's id, and errors, of which nothing
 * but that there is a list is documented.  They are shown and not understood.
 */
static const char *
job_id(const Batches *b, Call *call, char **errors)
{
	HttpResponse *r = call_response(call);
	const JsonValue *answer,
			   *list;
	const char *problem;

	if (!b->with_job || call_error(call) != NULL)
		return NULL;
	json_clean(r->body, r->body_len);
	answer = json_parse(r->body, r->body_len, CurrentMemoryContext, &problem);
	list = json_get(answer, "errors");
	if (json_size(list) > 0)
		*errors = psprintf("The tenant took the call and lists errors: %s",
						   api_error_text(json_print(list)));
	return json_get_string(answer, "id");
}

/*
 * Send batch after batch.  A batch that the tenant refuses, or whose answer is
 * lost, does not keep the next from being sent; one that shows that none would
 * get through does.
 */
static void
run_batches(Batches *b, MakeBatch make, void *arg)
{
	const ApiError *error;
	int			done = 0;

	if (b->nids == 0)
		return;
	/* what a token would fail by is an error still, not a row */
	error = call_fetch_token(b->session->calls, b->session->tenant, false);
	if (error != NULL)
		api_error_raise(error);
	while (done < b->nids)
	{
		int			n = Min(b->per, b->nids - done);
		CallSpec	spec;
		Call	   *call;
		const char *outcome;
		const char *job;
		char	   *line;

		CHECK_FOR_INTERRUPTS();
		make(&spec, b, b->ids + done, n, arg);
		call = session_write(b->session, b->function, b->ids + done, n, &spec);
		error = call_error(call);
		outcome = outcome_name(error);
		line = error_line(error);
		job = job_id(b, call, &line);
		put_outcomes(b, done, n, outcome, line, job);
		done += n;
		if (strcmp(outcome, "not_sent") == 0)
		{
			put_outcomes(b, done, b->nids - done, outcome, line, NULL);
			break;
		}
		call_free(call);
	}
}

static void
make_cancel(CallSpec *spec, Batches *b, const char *const *ids, int n, void *arg)
{
	const char *comment = (const char *) arg;

	if (b->per > 1)
		api_bulk_cancel(spec, b->session->tenant, ids, n, comment);
	else
		api_cancel(spec, b->session->tenant, ids[0], comment);
}

/* cancel_many(access_request_ids text[], comment text, server name) */
Datum
accessreq_cancel_many(PG_FUNCTION_ARGS)
{
	Batches		b = {0};
	char	   *comment = session_text_arg(fcinfo, 1);

	api_check_comment(comment);
	b.fcinfo = fcinfo;
	b.function = "cancel_many";
	b.ids = (const char *const *) session_ids_arg(fcinfo, 0, &b.nids);
	InitMaterializedSRF(fcinfo, 0);
	b.session = session_open(fcinfo, 2, CurTransactionContext);
	b.per = api_has(b.session->tenant, API_BULK_CANCEL) ? API_MAX_BULK_CANCEL : 1;
	run_batches(&b, make_cancel, comment);
	session_close(b.session);
	return (Datum) 0;
}

typedef struct CloseArgs
{
	char	   *message;
	char	   *execution_status;
	char	   *completion_status;
} CloseArgs;

static void
make_close(CallSpec *spec, Batches *b, const char *const *ids, int n, void *arg)
{
	CloseArgs  *args = (CloseArgs *) arg;

	api_close(spec, b->session->tenant, ids, n, args->message,
			  args->execution_status, args->completion_status);
}

/*
 * close(access_request_ids text[], message text, execution_status text,
 * completion_status text, server name)
 */
Datum
accessreq_close(PG_FUNCTION_ARGS)
{
	Batches		b = {0};
	CloseArgs	args;
	CallSpec	probe;

	args.message = session_text_arg(fcinfo, 1);
	args.execution_status = session_text_arg(fcinfo, 2);
	args.completion_status = session_text_arg(fcinfo, 3);
	api_check_close(args.execution_status, args.completion_status);
	b.fcinfo = fcinfo;
	b.function = "close";
	b.ids = (const char *const *) session_ids_arg(fcinfo, 0, &b.nids);
	b.per = API_MAX_CLOSE;
	b.with_job = true;
	InitMaterializedSRF(fcinfo, 0);
	b.session = session_open(fcinfo, 4, CurTransactionContext);
	/* an api without the call is an error, also for no ids */
	api_close(&probe, b.session->tenant, NULL, 0, NULL, NULL, NULL);
	run_batches(&b, make_close, &args);
	session_close(b.session);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- refresh, sync */

static void
put_refreshed(void *arg, const StoreOutcome *outcome)
{
	FunctionCallInfo fcinfo = (FunctionCallInfo) arg;
	Datum		values[4] = {0};
	bool		nulls[4] = {0};

	values[0] = server_text_or_null(outcome->account_activity_item_id, &nulls[0]);
	values[1] = server_text_or_null(outcome->access_request_id, &nulls[1]);
	values[2] = server_text_or_null(outcome->old_state, &nulls[2]);
	values[3] = server_text_or_null(outcome->new_state, &nulls[3]);
	put_row(fcinfo, values, nulls);
}

static void
require_token(Session *session, bool patient)
{
	const ApiError *error = call_fetch_token(session->calls, session->tenant, patient);

	if (error != NULL)
		api_error_raise(error);
}

/* refresh(access_request_ids text[], server name) */
Datum
accessreq_refresh(PG_FUNCTION_ARGS)
{
	int			nids;
	char	  **ids = session_ids_arg(fcinfo, 0, &nids);
	Session    *session;

	PreventCommandDuringRecovery("accessreq.refresh()");
	PreventCommandIfReadOnly("accessreq.refresh()");
	InitMaterializedSRF(fcinfo, 0);
	session = session_open(fcinfo, 1, CurTransactionContext);
	if (nids > 0)
	{
		require_token(session, false);
		SPI_connect();
		loop_refresh(session->tenant, token_tenant(session->tenant), session->calls, (const char *const *) ids, nids,
					 put_refreshed, fcinfo);
		SPI_finish();
	}
	session_close(session);
	return (Datum) 0;
}

typedef struct SyncNotice
{
	int64		started;
	int64		last;
	int64		seen_before;	/* by the run that this one takes up */
} SyncNotice;

static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* 12500 as "12,500". */
static char *
grouped(int64 n)
{
	char	   *digits = psprintf(INT64_FORMAT, n);
	int			len = strlen(digits);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < len; i++)
	{
		if (i > 0 && (len - i) % 3 == 0)
			appendStringInfoChar(&buf, ',');
		appendStringInfoChar(&buf, digits[i]);
	}
	return buf.data;
}

static void
sync_progress(void *arg, const JobRun *run, PullProgress p)
{
	SyncNotice *notice = (SyncNotice *) arg;
	int64		now = now_us();
	double		rate;

	if (now - notice->last < NOTICE_INTERVAL_US)
		return;
	notice->last = now;
	rate = (double) (p.seen - notice->seen_before) * USECS_PER_SEC / (now - notice->started);
	if (p.total >= p.seen && p.total > 0 && rate > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("pulled %s of %s (%d%%), %s rows/s, %.0f s left",
						grouped(p.seen), grouped(p.total), (int) (p.seen * 100 / p.total),
						grouped((int64) rate), (p.total - p.seen) / rate)));
	else
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("pulled %s, %s rows/s", grouped(p.seen), grouped((int64) rate))));
}

static void
sync_commit(void *arg)
{
	SPI_commit();
}

/* 25001 wherever a page could not be committed. */
static void
check_may_commit(FunctionCallInfo fcinfo)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic;

	if (atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("accessreq.sync cannot run inside a transaction block, a function or an EXCEPTION block"),
				 errdetail("It commits each page together with its place in the pull."),
				 errhint("CALL it on its own, with autocommit on.")));
}

/*
 * One pull of a server at a time: wait for the one before us, and say so.
 * True where it had to wait.
 */
static bool
lock_pull(const Tenant *tenant)
{
	int			pid;

	if (store_lock_pull(tenant->serverid, false))
		return false;
	pid = job_running_pid(tenant->server);
	SPI_commit();
	ereport(NOTICE,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 pid != 0 ?
			 errmsg("waiting for the pull of server \"%s\" by process %d to end", tenant->server, pid) :
			 errmsg("waiting for another pull of server \"%s\" to end", tenant->server)));
	(void) store_lock_pull(tenant->serverid, true);
	return true;
}

/*
 * The session of a pull, with the pull's lock.  After a wait everything is
 * looked at again: the server may have been altered or dropped, rights revoked.
 */
static Session *
open_pull(FunctionCallInfo fcinfo, MemoryContext cxt)
{
	Session    *session = session_open(fcinfo, 0, cxt);

	/* from here on nothing is held while we wait, but the pull's lock */
	SPI_commit();
	while (lock_pull(session->tenant))
	{
		Oid			locked = session->tenant->serverid;

		session_close(session);
		SPI_commit();			/* a new transaction sees what others did */
		session = session_open(fcinfo, 0, cxt);
		SPI_commit();
		if (session->tenant->serverid == locked)
			break;
		store_unlock_pull(locked);
	}
	return session;
}

/* An interrupted pull goes on: its first rows are not read again. */
static void
report_resumed(int64 seen)
{
	if (seen > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("going on after the %s rows that an interrupted pull has stored",
						grouped(seen)),
				 errhint("full_scan => true starts anew.")));
}

static void
report_result(const JobRun *run)
{
	ereport(NOTICE,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("pulled %s rows: %s new, %s changed%s",
					grouped(run->counts.seen), grouped(run->counts.added),
					grouped(run->counts.changed),
					run->counts.quarantined > 0 ?
					psprintf(", %s quarantined", grouped(run->counts.quarantined)) : "")));
}

/*
 * sync(server name, full_scan bool): pull now, in this session.  Commits page
 * by page, so nothing is held while it waits for the tenant.
 */
Datum
accessreq_sync(PG_FUNCTION_ARGS)
{
	Session    *session;
	JobRun	   *run;
	SyncNotice	notice;
	LoopHost	host = {sync_commit, sync_progress, &notice};
	bool		full_scan = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	MemoryContext cxt,
				old;

	check_may_commit(fcinfo);
	PreventCommandDuringRecovery("accessreq.sync");
	PreventCommandIfReadOnly("accessreq.sync");
	/* the transaction's context would not survive the first commit */
	cxt = AllocSetContextCreate(PortalContext, "accessreq sync", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	MemoryContextSwitchTo(cxt);
	session = open_pull(fcinfo, cxt);
	require_token(session, true);
	run = job_begin(session->tenant, token_tenant(session->tenant), full_scan);
	SPI_commit();
	notice.started = notice.last = now_us();
	notice.seen_before = pull_progress(pull_create(run->cursor)).seen;
	report_resumed(notice.seen_before);
	loop_pull(session->tenant, session->calls, run, &host);
	store_unlock_pull(session->tenant->serverid);
	report_result(run);
	SPI_finish();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	PG_RETURN_VOID();
}
