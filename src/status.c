/*-------------------------------------------------------------------------
 *
 * status.c
 *	  SQL-callable: statuses that are read live and stored nowhere: status,
 *	  status_of, count_status.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "api.h"
#include "catalog/pg_type.h"
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

/* Type item_status, which row_from_item() fills in, and raw. */
static void
begin_rows(FunctionCallInfo fcinfo)
{
	static const Oid columns[ROW_API_COLUMNS + 1] = {
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, BOOLOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID,
		TEXTARRAYOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID, JSONBOID, JSONBOID
	};

	session_begin_rows(fcinfo, columns, lengthof(columns));
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
	int64		max_rows = session_max_rows_arg(fcinfo, ARG_MAX_ROWS);

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
	begin_rows(fcinfo);
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

	begin_rows(fcinfo);
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
