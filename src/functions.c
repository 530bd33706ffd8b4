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

#include "acted.h"
#include "answer.h"
#include "api.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "row.h"
#include "session.h"
#include "token.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(accessreq_create);
PG_FUNCTION_INFO_V1(accessreq_grant_request);
PG_FUNCTION_INFO_V1(accessreq_revoke_request);
PG_FUNCTION_INFO_V1(accessreq_cancel);
PG_FUNCTION_INFO_V1(accessreq_cancel_many);
PG_FUNCTION_INFO_V1(accessreq_close);

static Datum
text_or_null(const char *utf8, bool *isnull)
{
	*isnull = utf8 == NULL;
	/* of what was accepted: no error over a character that is lacking */
	return utf8 ? CStringGetTextDatum(api_error_convert(utf8, strlen(utf8))) : (Datum) 0;
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
	session_put_row(fcinfo, values, nulls);
}

/* What was done, or may have been, is read first by the next cycle of a pull. */
static void
note_acted(const Session *session, Call *call, const char *const *ids, int nids)
{
	if (call_error(call) == NULL || call_was_sent(call))
		acted_note(session->tenant->serverid, ids, nids);
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
	static const Oid columns[] = {TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, INT8OID, BOOLOID};
	char	   *text;
	const JsonValue *body,
			   *answer;
	Session    *session;
	CallSpec	spec;
	Call	   *call;
	const char *problem;
	const char *const *people;
	int			npeople;
	const char **created;
	int			ncreated;

	session_require_arg(fcinfo, 0, "request");
	text = session_jsonb_arg(fcinfo, 0);
	body = session_parse(text);
	api_check_create(body);
	session_begin_rows(fcinfo, columns, lengthof(columns));
	session = session_open(fcinfo, 1, CurTransactionContext);
	api_create(&spec, session->tenant, text, body);
	people = people_of(body, &npeople);
	call = session_write(session, "create", people, npeople, &spec);
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	answer = answer_parse(call, &problem);
	created = answer_created(answer, &ncreated);
	note_acted(session, call, created, ncreated);
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

		session_put_row(fcinfo, &body, &isnull);
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

	id = session_id_arg(fcinfo, 0, "access_request_id");
	comment = session_text_arg(fcinfo, 1);
	api_check_comment(comment);
	session = session_open(fcinfo, 2, CurTransactionContext);
	api_cancel(&spec, session->tenant, id, comment);
	call = session_write(session, "cancel", (const char *const *) &id, 1, &spec);
	note_acted(session, call, (const char *const *) &id, 1);
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	answer = answer_jsonb(call);
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
		values[2] = session_text_datum(error, &nulls[2]);
		values[3] = text_or_null(job, &nulls[3]);
		session_put_row(b->fcinfo, values, nulls);
	}
}

/*
 * What the answer to a close says: the job's id, and errors, of which nothing
 * but that there is a list is documented.  They are shown and not understood.
 */
static const char *
job_id(const Batches *b, Call *call, char **errors)
{
	const JsonValue *answer,
			   *list;
	const char *problem;

	if (!b->with_job || call_error(call) != NULL)
		return NULL;
	answer = answer_parse(call, &problem);
	list = json_get(answer, "errors");
	if (json_size(list) > 0)
		*errors = answer_listed_errors(call, list);
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
	CallSpec	first;

	if (b->nids == 0)
		return;
	/* where none of them may leave no token is asked for either */
	make(&first, b, b->ids, Min(b->nids, b->per), arg);
	call_check_may_change(b->session->tenant, first.what);
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
		line = answer_error_line(error);
		job = job_id(b, call, &line);
		put_outcomes(b, done, n, outcome, line, job);
		note_acted(b->session, call, b->ids + done, n);
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
	static const Oid columns[] = {TEXTOID, TEXTOID, TEXTOID};
	Batches		b = {0};
	char	   *comment = session_text_arg(fcinfo, 1);

	api_check_comment(comment);
	b.fcinfo = fcinfo;
	b.function = "cancel_many";
	b.ids = (const char *const *) session_ids_arg(fcinfo, 0, &b.nids);
	session_begin_rows(fcinfo, columns, lengthof(columns));
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
	static const Oid columns[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
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
	session_begin_rows(fcinfo, columns, lengthof(columns));
	b.session = session_open(fcinfo, 4, CurTransactionContext);
	/* an api without the call is an error, also for no ids */
	api_close(&probe, b.session->tenant, NULL, 0, NULL, NULL, NULL);
	run_batches(&b, make_close, &args);
	session_close(b.session);
	return (Datum) 0;
}
