/*-------------------------------------------------------------------------
 *
 * requests.c
 *	  Statuses of single access requests, read by their ids: shown by
 *	  status_of(), stored by refresh().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "filter.h"
#include "item.h"
#include "job.h"
#include "nodes/pg_list.h"
#include "requests.h"

JsonSpan *
requests_cut(const Tenant *tenant, Call *call, int *nitems)
{
	HttpResponse *response = call_response(call);
	JsonSpan   *items;
	const char *problem;

	if (!json_cut_page(response->body, response->body_len, ITEM_ID_KEY, &items, nitems, &problem))
		api_error_raise(api_error_bad_answer(tenant, "list access request statuses",
											 response, problem, false));
	return items;
}

/* The id of the last item that has one that can be read, or NULL. */
static const char *
last_id(const JsonSpan *items, int nitems)
{
	for (int i = nitems - 1; i >= 0; i--)
	{
		if (json_has_id(&items[i]))
			return pnstrdup(items[i].id, items[i].id_len);
	}
	return NULL;
}

/* A batch of ids, and how far its pages have come. */
typedef struct Batch
{
	const char *filter;
	const char *after;			/* the last id seen, or NULL */
	int64		seen;
	int64		total;			/* of the first page, -1: not told */
} Batch;

static void
start_batch(const Tenant *tenant, CallSet *calls, Batch *batch, const char *after)
{
	ApiStatusQuery query = {0};
	CallSpec	spec;

	query.limit = API_MAX_PAGE;
	query.count = after == NULL;
	batch->after = after;
	query.filters = filter_after(batch->filter, after);
	api_status(&spec, tenant, &query);
	spec.tag = batch;
	(void) call_start(calls, &spec);
}

/*
 * One page of a batch.  More may be behind any but one that is empty, or short
 * and the last by the tenant's count.  True when the batch is complete.
 */
static bool
take_batch_page(const Tenant *tenant, CallSet *calls, Call *call, RequestsPage take, void *arg)
{
	Batch	   *batch = call_tag(call);
	JsonSpan   *items;
	const char *last;
	int			nitems;
	bool		more;

	if (call_error(call) != NULL && !call_error(call)->past_end)
		api_error_raise(call_error(call));
	if (call_error(call) != NULL)
	{
		call_free(call);
		return true;
	}
	items = requests_cut(tenant, call, &nitems);
	last = last_id(items, nitems);
	if (batch->after == NULL)
		batch->total = call_response(call)->total_count;
	batch->seen += nitems;
	more = last != NULL &&
		(nitems >= API_MAX_PAGE || batch->total < 0 || batch->seen < batch->total);
	if (more && batch->after != NULL && strcmp(batch->after, last) == 0)
		api_error_raise(api_error_bad_answer(tenant, "list access request statuses",
											 call_response(call), PULL_STANDS_STILL, false));
	if (more)
		start_batch(tenant, calls, batch, last);
	take(arg, call, items, nitems);
	return !more;
}

void
requests_read(const Tenant *tenant, CallSet *calls, const char *const *ids, int nids,
			   RequestsPage take, void *arg)
{
	int			per = api_ids_per_filter(tenant);
	int			next = 0;
	int			under_way = 0;

	while (next < nids || under_way > 0)
	{
		Call	   *call;

		while (next < nids && under_way < tenant->max_concurrency)
		{
			Batch	   *batch = palloc0(sizeof(Batch));
			int			n = Min(per, nids - next);

			batch->filter = filter_requests(ids + next, n);
			start_batch(tenant, calls, batch, NULL);
			next += n;
			under_way++;
		}
		call = call_wait(calls);
		if (take_batch_page(tenant, calls, call, take, arg))
			under_way--;
	}
}

/* A page kept until all have come. */
typedef struct KeptPage
{
	Call	   *call;
	JsonSpan   *items;
	int			nitems;
} KeptPage;

static void
keep_page(void *arg, Call *call, JsonSpan *items, int nitems)
{
	List	  **pages = (List **) arg;
	KeptPage   *kept = palloc(sizeof(KeptPage));

	kept->call = call;
	kept->items = items;
	kept->nitems = nitems;
	*pages = lappend(*pages, kept);
}

static void
store_kept(const Tenant *tenant, const KeptPage *kept, bool keep_raw,
		   RequestsOutcome report, void *arg)
{
	StorePage	page = {0};
	StoreCounts counts = {0};
	StoreOutcome *outcomes;
	int			noutcomes;

	page.server = tenant->server;
	page.serverid = tenant->serverid;
	page.keep_raw = keep_raw;
	page.keep_since = DT_NOBEGIN;	/* who asks for it by id wants it */
	page.sent_at = call_response(kept->call)->sent_at;
	page.items = kept->items;
	page.nitems = kept->nitems;
	store_page(&page, &counts, &outcomes, &noutcomes);
	job_notify(tenant->server, 0, &counts);
	for (int i = 0; i < noutcomes; i++)
		report(arg, &outcomes[i]);
}

void
requests_refresh(const Tenant *tenant, const char *tenant_name, CallSet *calls, const char *const *ids, int nids,
			 RequestsOutcome report, void *arg)
{
	List	   *pages = NIL;
	ListCell   *cell;
	bool		keep_raw;

	requests_read(tenant, calls, ids, nids, keep_page, &pages);
	/* nothing of the database is held before the last answer is there */
	store_lock_page(tenant->serverid);
	job_check_tenant(tenant, tenant_name);
	keep_raw = job_keep_raw(tenant->server);
	foreach(cell, pages)
	{
		KeptPage   *kept = lfirst(cell);

		store_kept(tenant, kept, keep_raw, report, arg);
		call_free(kept->call);
	}
}
