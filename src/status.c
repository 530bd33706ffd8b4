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
#include "common/hashfn.h"
#include "filter.h"
#include "funcapi.h"
#include "idset.h"
#include "item.h"
#include "lib/stringinfo.h"
#include "listing.h"
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

/* Where rows go, and which have gone there. */
typedef struct Output
{
	FunctionCallInfo fcinfo;
	Session    *session;
	MemoryContext item_cxt;		/* reset for each item */
	IdSet	   *shown;			/* see is_new() */
	int64		rows;			/* as many as it has */
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
	out->shown = idset_create(session->cxt, API_MAX_PAGE);
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

/*
 * Each item is shown once: pages overlap where rows move between them, and where
 * the tenant sorts ids in another way than it filters by them.  One that has no
 * id is known by its bytes.
 */
static bool
is_new(Output *out, const StatusItem *item, const JsonSpan *span)
{
	const char *id = item->account_activity_item_id;
	uint64		hash;
	char		key[1 + sizeof(hash)] = {'\0'};	/* no id begins so */

	if (id != NULL)
		return idset_add(out->shown, id, strlen(id));
	hash = hash_bytes_extended((const unsigned char *) span->start, (int) span->len, 0);
	memcpy(key + 1, &hash, sizeof(hash));
	return idset_add(out->shown, key, sizeof(key));
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
		!item_decode_shown(span->start, span->len, out->item_cxt, &item, &problem))
		bad_item(out, problem, span);
	if (is_new(out, &item, span))
	{
		row_from_item(&item, values, nulls);
		values[ROW_API_COLUMNS] = row_jsonb(span->start, span->len);
		put(out, values, nulls);
	}
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
typedef struct Walk
{
	bool		by_id;			/* else by offset */
	const char *filters;		/* the caller's */
	int64		start;			/* his row_offset */
	int64		total;			/* of the filters, -1: not told */
	char	   *last_id;		/* by id: where the page before ended, or NULL */
	bool		has_begun;
	bool		gap;			/* the page before was empty */
	bool		doubtful;		/* ended where no end was to be seen */
	uint64		beginning;		/* hash of the first item of the page before */
} Walk;

/* Ask for a page: no items where it lies past the end. */
static Call *
ask_page(Output *out, const ApiStatusQuery *q, Walk *walk, JsonSpan **items, int *nitems)
{
	ApiStatusQuery query = *q;
	CallSpec	spec;
	Call	   *call;

	query.filters = filter_after(walk->filters, walk->last_id);
	query.count = !walk->has_begun && walk->total < 0;
	api_status(&spec, out->session->tenant, &query);
	call = call_run(out->session->calls, &spec);
	if (call_error(call) != NULL && !call_error(call)->past_end)
		api_error_raise(call_error(call));
	*items = NULL;
	*nitems = 0;
	if (call_error(call) == NULL)
	{
		*items = requests_cut(out->session->tenant, call, nitems);
		if (query.count)
			walk->total = call_response(call)->total_count;
	}
	return call;
}

/* Go on by offset; false where the tenant sent the same page again. */
static bool
step_by_offset(ApiStatusQuery *q, Walk *walk, const JsonSpan *items, int nitems)
{
	uint64		beginning = hash_bytes_extended((const unsigned char *) items[0].start,
												(int) items[0].len, 0);

	walk->doubtful = walk->has_begun && walk->beginning == beginning;
	walk->beginning = beginning;
	q->offset += nitems;
	return !walk->doubtful;
}

/* Go on behind the last item that has an id; where none has, by offset. */
static bool
step_by_id(Output *out, ApiStatusQuery *q, Walk *walk, Call *call,
		   const JsonSpan *items, int nitems, bool anything_new)
{
	char	   *id = listing_last_id(items, nitems);

	if (id == NULL)
		return step_by_offset(q, walk, items, nitems);
	/* one that ignores the filter would be asked for ever */
	if (walk->last_id != NULL && strcmp(walk->last_id, id) == 0)
		api_error_raise(api_error_bad_answer(out->session->tenant, "list access request statuses",
											 call_response(call), PULL_STANDS_STILL, false));
	if (walk->last_id != NULL)
		pfree(walk->last_id);
	walk->last_id = MemoryContextStrdup(out->session->cxt, id);
	walk->beginning = 0;
	walk->doubtful = !anything_new;
	q->offset = 0;
	return anything_new;
}

/*
 * Whether a page without items is the end.  By offset one is stepped over where
 * the count says that there is more: gateways send such.
 */
static bool
step_over_gap(ApiStatusQuery *q, Walk *walk, bool past_end)
{
	if (past_end)
	{
		/* what was sent without an offset cannot be past the end */
		walk->doubtful = q->offset == 0;
		return false;
	}
	if (walk->by_id || walk->gap || q->offset + q->limit >= walk->total)
		return false;
	q->offset += q->limit;
	return true;
}

/* One page of status(): false when it was the last. */
static bool
fetch_page(Output *out, ApiStatusQuery *q, Walk *walk)
{
	JsonSpan   *items;
	int			nitems;
	int64		before = out->rows;
	Call	   *call = ask_page(out, q, walk, &items, &nitems);
	int64		position;
	bool		more;

	put_items(out, items, nitems);
	/* the total counts what stands before row_offset too */
	position = walk->by_id ? walk->start + out->rows : q->offset + nitems;
	if (out->rows >= out->max_rows)
		more = false;
	else if (nitems == 0)
		more = step_over_gap(q, walk, call_error(call) != NULL);
	else if (nitems < q->limit && walk->total >= 0 && position >= walk->total)
		more = false;
	else if (walk->by_id)
		more = step_by_id(out, q, walk, call, items, nitems, out->rows > before);
	else
		more = step_by_offset(q, walk, items, nitems);
	walk->gap = nitems == 0;
	walk->has_begun = true;
	call_free(call);
	return more;
}

/* All pages, each in a context of its own: there may be thousands. */
static void
fetch_pages(Output *out, ApiStatusQuery *q, Walk *walk)
{
	MemoryContext page_cxt = AllocSetContextCreate(out->session->cxt, "accessreq page",
												   ALLOCSET_DEFAULT_SIZES);
	bool		more = out->max_rows > 0;

	q->offset = walk->start;
	while (more)
	{
		MemoryContext old = MemoryContextSwitchTo(page_cxt);

		CHECK_FOR_INTERRUPTS();
		more = fetch_page(out, q, walk);
		MemoryContextSwitchTo(old);
		MemoryContextReset(page_cxt);
	}
}

/* ------------------------------------------------------------ lists cut short */

/* How many rows such a total promises. */
static int64
promised(const Output *out, const Walk *walk, int64 total)
{
	return Min(Max(total - walk->start, 0), out->max_rows);
}

/* Are fewer rows there than such a total promises, or than anybody can tell? */
static bool
is_short(const Output *out, const Walk *walk, int64 total)
{
	if (out->rows >= out->max_rows)
		return false;
	return total >= 0 ? out->rows < promised(out, walk, total) : walk->doubtful;
}

/* The count as it is now, -1 where the tenant does not tell it. */
static int64
count_again(Output *out, const ApiStatusQuery *q, const Walk *walk)
{
	ApiStatusQuery query = *q;
	CallSpec	spec;
	Call	   *call;
	int64		total = -1;

	query.filters = walk->filters;
	query.limit = 1;
	query.offset = 0;
	query.count = true;
	api_status(&spec, out->session->tenant, &query);
	call = call_run(out->session->calls, &spec);
	if (call_error(call) == NULL)
		total = call_response(call)->total_count;
	else if (!call_error(call)->past_end)
		api_error_raise(call_error(call));
	call_free(call);
	return total;
}

static void
warn_short(const Output *out, const Walk *walk, int64 total, bool again)
{
	const char *server = out->session->tenant->server;

	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 total >= 0 ?
			 errmsg("server \"%s\" counts " INT64_FORMAT " statuses and showed " INT64_FORMAT,
					server, promised(out, walk, total), out->rows) :
			 errmsg("server \"%s\" may have more statuses than the " INT64_FORMAT " that it showed",
					server, out->rows),
			 again ?
			 errdetail("The list was read by the items' ids, and again by offset.") :
			 errhint("Pages by offset, which sorters want, pass by rows that move meanwhile. Without sorters a short list is read a second time in another way.")));
}

/*
 * The count is all there is against a list that ends too early: one by which a
 * page in its middle is empty, or ids are not sorted as they are filtered.  The
 * lesser count holds, because rows go meanwhile.  A list by id is then read once
 * more by offset, to its end, for what was passed by.
 */
static void
complete_list(Output *out, ApiStatusQuery *q, const Walk *walk)
{
	Walk		second = {.filters = walk->filters, .start = walk->start};
	int64		again;

	if (!is_short(out, walk, walk->total))
		return;
	again = count_again(out, q, walk);
	second.total = again < 0 || walk->total < 0 ? Max(again, walk->total) : Min(again, walk->total);
	second.doubtful = walk->doubtful;
	if (walk->by_id && is_short(out, &second, second.total))
		fetch_pages(out, q, &second);
	if (is_short(out, &second, second.total))
		warn_short(out, &second, second.total, walk->by_id);
}

/* status(requested_for, …, max_rows, page_size, row_offset, server) */
Datum
accessreq_status(PG_FUNCTION_ARGS)
{
	ApiStatusQuery query;
	Walk		walk = {.total = -1};
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
	walk.by_id = query.sorters == NULL || query.sorters[0] == '\0';
	walk.filters = query.filters;
	walk.start = query.offset;
	begin_rows(fcinfo);
	session = session_open(fcinfo, ARG_SERVER, CurTransactionContext);
	output_open(&out, fcinfo, session, max_rows);
	fetch_pages(&out, &query, &walk);
	complete_list(&out, &query, &walk);
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
