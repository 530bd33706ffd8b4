/*-------------------------------------------------------------------------
 *
 * status.c
 *	  SQL-callable: what is read live and stored nowhere: status, status_of,
 *	  count_status, get.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api.h"
#include "common/hashfn.h"
#include "filter.h"
#include "funcapi.h"
#include "item.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pull.h"
#include "requests.h"
#include "row.h"
#include "session.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(accessreq_status);
PG_FUNCTION_INFO_V1(accessreq_status_of);
PG_FUNCTION_INFO_V1(accessreq_count_status);
PG_FUNCTION_INFO_V1(accessreq_get);

/* Arguments of status(), and what of them count_status() has, by position. */
enum StatusArg
{
	ARG_REQUESTED_FOR,
	ARG_REQUESTED_BY,
	ARG_REGARDING_IDENTITY,
	ARG_ASSIGNED_TO,
	ARG_FILTERS,
	ARG_SORTERS,
	ARG_REQUEST_STATE,
	ARG_MAX_ROWS,
	ARG_PAGE_SIZE,
	ARG_ROW_OFFSET,
	ARG_SERVER
};

enum CountArg
{
	COUNT_ARG_REQUEST_STATE = 5,
	COUNT_ARG_SERVER
};

static int64
max_rows_arg(FunctionCallInfo fcinfo, int argno)
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

/* -------------------------------------------------------------- items to rows */

/* Where rows go, and how many of them. */
typedef struct Output
{
	FunctionCallInfo fcinfo;
	Session    *session;
	MemoryContext item_cxt;		/* reset for each item */
	int64		rows;
	int64		max_rows;
} Output;

static void
output_open(Output *out, FunctionCallInfo fcinfo, Session *session, int64 max_rows)
{
	out->fcinfo = fcinfo;
	out->session = session;
	out->rows = 0;
	out->max_rows = max_rows;
	out->item_cxt = AllocSetContextCreate(session->cxt, "accessreq item",
										  ALLOCSET_DEFAULT_SIZES);
}

static void
put(Output *out, Datum *values, bool *nulls)
{
	session_put_row(out->fcinfo, values, nulls);
	out->rows++;
}

static void
bad_item(Output *out, const char *problem, const JsonSpan *span)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("server \"%s\" returned an item that cannot be read",
					out->session->tenant->server),
			 span->id != NULL ?
			 errdetail("Item \"%s\": %s.",
					   api_error_text(pnstrdup(span->id, span->id_len)), problem) :
			 errdetail("The item: %s.", problem),
			 errhint("CALL accessreq.sync() puts such an item aside and stores the others.")));
}

static void
put_item(Output *out, const JsonSpan *span)
{
	Datum		values[ROW_API_COLUMNS + 1] = {0};
	bool		nulls[ROW_API_COLUMNS + 1] = {0};
	MemoryContext old;
	StatusItem	item;
	const char *problem = span->problem;

	MemoryContextReset(out->item_cxt);
	old = MemoryContextSwitchTo(out->item_cxt);
	if (problem != NULL ||
		!item_decode(span->start, span->len, out->item_cxt, &item, &problem))
		bad_item(out, problem, span);
	row_from_item(&item, values, nulls);
	values[ROW_API_COLUMNS] = row_jsonb(span->start, span->len);
	put(out, values, nulls);
	MemoryContextSwitchTo(old);
}

static void
put_items(Output *out, const JsonSpan *items, int nitems)
{
	for (int i = 0; i < nitems && out->rows < out->max_rows; i++)
		put_item(out, &items[i]);
}

/* --------------------------------------------------------------------- status */

static void
read_filters(FunctionCallInfo fcinfo, ApiStatusQuery *q)
{
	memset(q, 0, sizeof(ApiStatusQuery));
	q->requested_for = session_text_arg(fcinfo, ARG_REQUESTED_FOR);
	q->requested_by = session_text_arg(fcinfo, ARG_REQUESTED_BY);
	q->regarding_identity = session_text_arg(fcinfo, ARG_REGARDING_IDENTITY);
	q->assigned_to = session_text_arg(fcinfo, ARG_ASSIGNED_TO);
	q->filters = session_text_arg(fcinfo, ARG_FILTERS);
	q->limit = API_MAX_PAGE;
}

/*
 * Where status() stands.  Without sorters of the caller's it goes by the
 * item's id, so that rows that come and go meanwhile make it miss none;
 * sorters of his want offsets, which drift, and the documentation says so.
 */
typedef struct Paging
{
	bool		by_id;
	const char *filters;		/* the caller's */
	const char *last_id;		/* where the page before ended, or NULL */
	int64		total;			/* of the filters, -1: not told */
	int64		seen;
} Paging;

/* One page of status(): false when it was the last. */
static bool
fetch_page(Output *out, ApiStatusQuery *q, Paging *paging)
{
	CallSpec	spec;
	Call	   *call;
	JsonSpan   *items;
	int			nitems;
	bool		more;

	q->count = paging->total < 0 && paging->seen == 0;
	api_status(&spec, out->session->tenant, q);
	call = call_run(out->session->calls, &spec);
	if (call_error(call) != NULL && call_error(call)->past_end)
		return false;
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	if (q->count)
		paging->total = call_response(call)->total_count;
	items = requests_cut(out->session->tenant, call, &nitems);
	put_items(out, items, nitems);
	paging->seen += nitems;
	/* the total counts what stands before row_offset too */
	more = nitems > 0 && out->rows < out->max_rows &&
		!(nitems < q->limit && paging->total >= 0 && paging->seen >= paging->total);
	if (more && paging->by_id)
	{
		const JsonSpan *last = &items[nitems - 1];
		char	   *id;

		if (last->id == NULL)
			bad_item(out, "it has no accountActivityItemId", last);
		id = pnstrdup(last->id, last->id_len);
		/* one that ignores the filter would be asked for ever */
		if (paging->last_id != NULL && strcmp(paging->last_id, id) == 0)
			api_error_raise(api_error_bad_answer(out->session->tenant, spec.what,
												 call_response(call), PULL_STANDS_STILL, false));
		paging->last_id = id;
		q->filters = filter_after(paging->filters, id);
		q->offset = 0;
	}
	else
		q->offset += nitems;
	call_free(call);
	return more;
}

/* All pages, each in a context of its own: there may be thousands. */
static void
fetch_pages(Output *out, ApiStatusQuery *q, Paging *paging)
{
	MemoryContext page_cxt = AllocSetContextCreate(out->session->cxt, "accessreq page",
												   ALLOCSET_DEFAULT_SIZES);
	bool		more = out->max_rows > 0;

	while (more)
	{
		MemoryContext old = MemoryContextSwitchTo(page_cxt);

		CHECK_FOR_INTERRUPTS();
		more = fetch_page(out, q, paging);
		MemoryContextSwitchTo(old);
		if (more && paging->by_id)
		{
			q->filters = MemoryContextStrdup(out->session->cxt, q->filters);
			paging->last_id = MemoryContextStrdup(out->session->cxt, paging->last_id);
		}
		MemoryContextReset(page_cxt);
	}
}

/* status(requested_for, …, max_rows, page_size, row_offset, server) */
Datum
accessreq_status(PG_FUNCTION_ARGS)
{
	ApiStatusQuery query;
	Paging		paging = {0};
	Output		out;
	Session    *session;
	int64		max_rows = max_rows_arg(fcinfo, ARG_MAX_ROWS);

	read_filters(fcinfo, &query);
	query.sorters = session_text_arg(fcinfo, ARG_SORTERS);
	query.request_state = session_text_arg(fcinfo, ARG_REQUEST_STATE);
	if (!PG_ARGISNULL(ARG_PAGE_SIZE))
		query.limit = PG_GETARG_INT32(ARG_PAGE_SIZE);
	if (!PG_ARGISNULL(ARG_ROW_OFFSET))
		query.offset = PG_GETARG_INT64(ARG_ROW_OFFSET);
	api_check_status_query(&query);
	query.limit = (int) Max(Min(query.limit, max_rows), 1);
	paging.by_id = query.sorters == NULL || query.sorters[0] == '\0';
	paging.filters = query.filters;
	paging.total = -1;
	paging.seen = 0;
	InitMaterializedSRF(fcinfo, 0);
	session = session_open(fcinfo, ARG_SERVER, CurTransactionContext);
	output_open(&out, fcinfo, session, max_rows);
	fetch_pages(&out, &query, &paging);
	session_close(session);
	return (Datum) 0;
}

static void
put_page(void *arg, Call *call, JsonSpan *items, int nitems)
{
	put_items((Output *) arg, items, nitems);
	call_free(call);
}

/* status_of(access_request_ids text[], server name) */
Datum
accessreq_status_of(PG_FUNCTION_ARGS)
{
	int			nids;
	char	  **ids = session_ids_arg(fcinfo, 0, &nids);
	Session    *session;
	Output		out;

	InitMaterializedSRF(fcinfo, 0);
	session = session_open(fcinfo, 1, CurTransactionContext);
	output_open(&out, fcinfo, session, PG_INT64_MAX);
	requests_read(session->tenant, session->calls, (const char *const *) ids, nids,
				   put_page, &out);
	session_close(session);
	return (Datum) 0;
}

/* count_status(requested_for, …, filters, request_state, server) */
Datum
accessreq_count_status(PG_FUNCTION_ARGS)
{
	ApiStatusQuery query;
	Session    *session;
	CallSpec	spec;
	Call	   *call;
	int64		total;

	read_filters(fcinfo, &query);
	query.request_state = session_text_arg(fcinfo, COUNT_ARG_REQUEST_STATE);
	query.limit = 1;
	query.count = true;
	api_check_status_query(&query);
	session = session_open(fcinfo, COUNT_ARG_SERVER, CurTransactionContext);
	api_status(&spec, session->tenant, &query);
	call = call_run_or_raise(session->calls, &spec);
	total = call_response(call)->total_count;
	if (total < 0)
		api_error_raise(api_error_bad_answer(session->tenant, spec.what, call_response(call),
											 "it has no valid header X-Total-Count", false));
	session_close(session);
	PG_RETURN_INT64(total);
}

/* ------------------------------------------------------------------------ get */

/* One parameter; false where the value is null. */
static bool
append_scalar(StringInfo buf, const char *key, const JsonValue *v)
{
	const char *text;

	if (json_is_null(v))
		return false;
	if (json_is_object(v) || json_is_array(v))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" of the query is no text, number or boolean",
						api_error_text(key))));
	text = json_is_string(v) ? json_string(v) : json_print(v);
	appendStringInfo(buf, "%s%s=%s", buf->len > 0 ? "&" : "", http_encode(key), http_encode(text));
	return true;
}

/* The caller's parameters; limit and offset are ours to change. */
static void
append_query(StringInfo buf, const JsonValue *query, int64 *limit, int64 *offset)
{
	if (query == NULL)
		return;
	if (!json_is_object(query))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"query\" is not a JSON object")));
	for (const JsonValue *v = json_first(query); v != NULL; v = json_next(v))
	{
		int64	   *number = strcmp(json_key(v), "limit") == 0 ? limit :
			strcmp(json_key(v), "offset") == 0 ? offset : NULL;

		if (number == NULL)
			(void) append_scalar(buf, json_key(v), v);
		else if (!json_get_int64(query, json_key(v), number) || *number < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("parameter \"%s\" of the query is not a number from 0",
							json_key(v))));
	}
}

static void
put_value(Output *out, const char *text, size_t len)
{
	MemoryContext old;
	Datum		value;
	bool		isnull = false;

	MemoryContextReset(out->item_cxt);
	old = MemoryContextSwitchTo(out->item_cxt);
	value = row_jsonb(text, len);
	put(out, &value, &isnull);
	MemoryContextSwitchTo(old);
}

/*
 * One page of a GET.  An array is rows, and has a next page; anything else is
 * one row.  A collection that knows no offset sends the same page again: its
 * hash tells, or we would never end.
 */
static bool
take_get_page(Output *out, const char *what, Call *call, uint64 *last_hash, int *nrows)
{
	HttpResponse *r = call_response(call);
	size_t		start = strspn(r->body, " \t\r\n");
	uint64		hash = hash_bytes_extended((unsigned char *) r->body, r->body_len, 0);
	JsonSpan   *items;
	const char *problem;

	*nrows = 0;
	if (r->body[start] != '[')
	{
		json_clean(r->body, r->body_len);
		if (json_parse(r->body, r->body_len, out->item_cxt, &problem) == NULL)
			api_error_raise(api_error_bad_answer(out->session->tenant, what, r,
												 problem, false));
		put_value(out, r->body, r->body_len);
		return false;
	}
	if (hash == *last_hash)
		return false;
	*last_hash = hash;
	if (!json_cut_page(r->body, r->body_len, "id", &items, nrows, &problem))
		api_error_raise(api_error_bad_answer(out->session->tenant, what, r,
											 problem, false));
	for (int i = 0; i < *nrows && out->rows < out->max_rows; i++)
	{
		MemoryContextReset(out->item_cxt);
		/* else jsonb would refuse it, and print it; any value is an element */
		if (json_parse(items[i].start, items[i].len, out->item_cxt, &problem) == NULL)
			api_error_raise(api_error_bad_answer(out->session->tenant, what, r, problem, false));
		put_value(out, items[i].start, items[i].len);
	}
	/* some endpoints have smaller pages than they are asked for */
	return *nrows > 0 && out->rows < out->max_rows;
}

/* get(path text, query jsonb, max_rows bigint, server name) */
Datum
accessreq_get(PG_FUNCTION_ARGS)
{
	int64		max_rows = max_rows_arg(fcinfo, 2);
	int64		limit = API_MAX_PAGE;
	int64		offset = 0;
	uint64		last_hash = 0;
	StringInfoData query;
	Output		out;
	Session    *session;
	MemoryContext page_cxt,
				old;
	char	   *path;
	bool		more = max_rows > 0;

	session_require_arg(fcinfo, 0, "path");
	path = session_text_arg(fcinfo, 0);
	initStringInfo(&query);
	if (!PG_ARGISNULL(1))
		append_query(&query, session_parse(session_jsonb_arg(fcinfo, 1)), &limit, &offset);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	session = session_open(fcinfo, 3, CurTransactionContext);
	output_open(&out, fcinfo, session, max_rows);
	page_cxt = AllocSetContextCreate(session->cxt, "accessreq page", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(page_cxt);
	while (more)
	{
		CallSpec	spec;
		Call	   *call;
		int			nrows;

		MemoryContextReset(page_cxt);
		api_get(&spec, session->tenant, path,
				psprintf("%s%slimit=" INT64_FORMAT "&offset=" INT64_FORMAT,
						 query.data, query.len > 0 ? "&" : "", limit, offset));
		call = call_run(session->calls, &spec);
		if (call_error(call) != NULL && call_error(call)->past_end)
			break;
		if (call_error(call) != NULL)
			api_error_raise(call_error(call));
		more = take_get_page(&out, spec.what, call, &last_hash, &nrows);
		offset += nrows;
		call_free(call);
	}
	MemoryContextSwitchTo(old);
	session_close(session);
	return (Datum) 0;
}
