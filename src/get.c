/*-------------------------------------------------------------------------
 *
 * get.c
 *	  SQL-callable: get(), any GET of the API, its pages followed.
 *
 * Which collections page, by what and how they end is not documented for all
 * of them, so a walk of pages ends on any sign that there are no more, and at
 * a bound where there is none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "idset.h"
#include "jsonbtext.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "row.h"
#include "session.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(accessreq_get);

/*
 * Pages of one call.  Pages that change a little each time may be one that
 * knows no offset, and what is longer is read in parts.
 */
#define MAX_PAGES 10000

typedef struct Walk
{
	FunctionCallInfo fcinfo;
	Session    *session;
	MemoryContext item_cxt;		/* reset for each element */
	MemoryContext page_cxt;		/* reset for each page */
	char	   *path;
	StringInfoData query;		/* the caller's part of it */
	int64		limit;
	int64		offset;
	int64		rows;
	int64		max_rows;
	int			pages;
	IdSet	   *firsts;			/* the first elements of the pages */
} Walk;

/* -------------------------------------------------------------- the query */

/* A scalar as the API takes it; NULL for null.  Numbers keep all their digits. */
static char *
scalar_text(const char *key, const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return NULL;
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		case jbvString:
			return session_utf8(pnstrdup(v->val.string.val, v->val.string.len));
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("parameter \"%s\" of the query is no text, number or boolean", key)));
	}
	return NULL;
}

/* limit and offset, which are ours to change. */
static int64
whole_number(const char *key, const JsonbValue *v)
{
	char	   *text = v->type == jbvNumeric ? scalar_text(key, v) : NULL;
	char	   *end = text;
	int64		number = -1;

	if (text != NULL)
	{
		errno = 0;
		number = strtoi64(text, &end, 10);
	}
	if (text == NULL || *end != '\0' || errno != 0 || number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" of the query is not a number from 0", key)));
	return number;
}

static void
read_query(Walk *w, const Jsonb *query)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	char	   *key = NULL;
	char	   *text;

	if (!JB_ROOT_IS_OBJECT(query))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"query\" is not a JSON object")));
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &query->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = jsonbtext_key(&v);
		if (token != WJB_VALUE)
			continue;
		if (strcmp(key, "limit") == 0)
			w->limit = whole_number(key, &v);
		else if (strcmp(key, "offset") == 0)
			w->offset = whole_number(key, &v);
		else if ((text = scalar_text(key, &v)) != NULL)
			appendStringInfo(&w->query, "%s%s=%s", w->query.len > 0 ? "&" : "",
							 http_encode(session_utf8(key)), http_encode(text));
	}
}

/* ---------------------------------------------------------------- the pages */

static void
refuse_answer(const Walk *w, const char *what, const HttpResponse *r, const char *problem)
{
	api_error_raise(api_error_bad_answer(w->session->tenant, what, r, problem, false));
}

/* One row.  The text was parsed: else jsonb would refuse it, and print it. */
static void
put_value(Walk *w, const char *text, size_t len)
{
	MemoryContext old = MemoryContextSwitchTo(w->item_cxt);
	bool		isnull = false;
	Datum		value = row_jsonb(text, len);

	session_put_row(w->fcinfo, &value, &isnull);
	w->rows++;
	MemoryContextSwitchTo(old);
}

/*
 * Did a page begin like this before?  Then the collection knows no offset, and
 * sends its first page for ever; by the id, because the rest may change.
 */
static bool
began_so_before(Walk *w, const JsonSpan *first)
{
	uint64		hash;

	if (first->id != NULL && first->id_len > 0)
		return !idset_add(w->firsts, first->id, first->id_len);
	hash = hash_bytes_extended((unsigned char *) first->start, first->len, 0);
	return !idset_add(w->firsts, (char *) &hash, sizeof(hash));
}

/* Rows are left out, or may be: never without a word. */
static void
warn_unfinished(const Walk *w, const char *why)
{
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("stopped after %d pages of \"%s\", which may have more: %s",
					w->pages, api_error_text(w->path), why),
			 errhint("Go on with query => '{\"offset\": " INT64_FORMAT "}'. A collection that knows no offset sends the same elements again.",
					 w->offset)));
}

/* Is there a next page, after one of so many elements? */
static bool
goes_on(Walk *w, int nrows, int64 total)
{
	/* some endpoints have smaller pages than they are asked for */
	if (nrows == 0 || w->rows >= w->max_rows || (total >= 0 && w->offset >= total))
		return false;
	if (w->pages < MAX_PAGES)
		return true;
	warn_unfinished(w, psprintf("no more than %d pages are read in one call", MAX_PAGES));
	return false;
}

/* An array is rows, and may have a next page; anything else is one row. */
static bool
take_page(Walk *w, const char *what, Call *call)
{
	HttpResponse *r = call_response(call);
	size_t		start = strspn(r->body, " \t\r\n");
	JsonSpan   *items;
	int			nitems;
	const char *problem;

	if (r->body[start] != '[')
	{
		json_clean(r->body, r->body_len);
		if (json_parse(r->body, r->body_len, w->item_cxt, &problem) == NULL)
			refuse_answer(w, what, r, problem);
		put_value(w, r->body, r->body_len);
		return false;
	}
	if (!json_cut_page(r->body, r->body_len, "id", &items, &nitems, &problem))
		refuse_answer(w, what, r, problem);
	if (nitems > 0 && began_so_before(w, &items[0]))
	{
		if (r->total_count > w->rows)
			warn_unfinished(w, psprintf("it announces " INT64_FORMAT " rows, and a page began as one before did",
										r->total_count));
		return false;
	}
	for (int i = 0; i < nitems && w->rows < w->max_rows; i++)
	{
		MemoryContextReset(w->item_cxt);
		if (json_parse(items[i].start, items[i].len, w->item_cxt, &problem) == NULL)
			refuse_answer(w, what, r, problem);
		put_value(w, items[i].start, items[i].len);
	}
	w->pages++;
	w->offset += nitems;
	return goes_on(w, nitems, r->total_count);
}

static bool
fetch_page(Walk *w)
{
	CallSpec	spec;
	Call	   *call;
	bool		more;

	api_get(&spec, w->session->tenant, w->path,
			psprintf("%s%slimit=" INT64_FORMAT "&offset=" INT64_FORMAT,
					 w->query.data, w->query.len > 0 ? "&" : "", w->limit, w->offset));
	call = call_run(w->session->calls, &spec);
	if (call_error(call) != NULL && call_error(call)->past_end)
		return false;
	if (call_error(call) != NULL)
		api_error_raise(call_error(call));
	more = take_page(w, spec.what, call);
	call_free(call);
	return more;
}

/*
 * get(path text, query jsonb, max_rows bigint, server name): the elements of a
 * collection, or one object.  It ends at an empty page, where offset has passed
 * X-Total-Count, where a page begins as an earlier one did, at the 400 that
 * means the end, and with a WARNING after MAX_PAGES pages.  Raises 22023 for a
 * query that cannot be sent, 08P01 for what is no JSON.
 */
Datum
accessreq_get(PG_FUNCTION_ARGS)
{
	Walk		w = {0};
	MemoryContext old;
	bool		more;

	w.fcinfo = fcinfo;
	w.max_rows = session_max_rows_arg(fcinfo, 2);
	w.limit = API_MAX_PAGE;
	session_require_arg(fcinfo, 0, "path");
	w.path = session_text_arg(fcinfo, 0);
	initStringInfo(&w.query);
	if (!PG_ARGISNULL(1))
		read_query(&w, PG_GETARG_JSONB_P(1));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	w.session = session_open(fcinfo, 3, CurTransactionContext);
	w.item_cxt = AllocSetContextCreate(w.session->cxt, "accessreq item", ALLOCSET_DEFAULT_SIZES);
	w.page_cxt = AllocSetContextCreate(w.session->cxt, "accessreq page", ALLOCSET_DEFAULT_SIZES);
	w.firsts = idset_create(w.session->cxt, 64);
	old = MemoryContextSwitchTo(w.page_cxt);
	for (more = w.max_rows > 0; more;)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(w.page_cxt);
		more = fetch_page(&w);
	}
	MemoryContextSwitchTo(old);
	session_close(w.session);
	return (Datum) 0;
}
