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
#include "listing.h"
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

/* Read a page that has come; true when its list is complete. */
static bool
take_page(const Tenant *tenant, CallSet *calls, Call *call, RequestsPage take, void *arg)
{
	Listing    *listing = call_tag(call);
	JsonSpan   *items;
	int			nitems;
	bool		more;
	const ApiError *error = listing_read(listing, tenant, call, &items, &nitems, &more);

	if (error != NULL)
		api_error_raise(error);
	if (call_error(call) != NULL)
	{
		/* the one that means the end of the pages */
		call_free(call);
		return true;
	}
	if (more)
		(void) listing_ask(listing, tenant, calls, NULL);
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
			Listing    *listing = palloc0(sizeof(Listing));
			int			n = Min(per, nids - next);

			listing->filter = filter_requests(ids + next, n);
			(void) listing_ask(listing, tenant, calls, NULL);
			next += n;
			under_way++;
		}
		call = call_wait(calls);
		if (take_page(tenant, calls, call, take, arg))
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
	job_check_origin(tenant->server);
	(void) job_check_tenant(tenant, tenant->server, tenant_name);
	job_check_left_behind(tenant, tenant_name);
	keep_raw = job_keep_raw(tenant->server);
	foreach(cell, pages)
	{
		KeptPage   *kept = lfirst(cell);

		store_kept(tenant, kept, keep_raw, report, arg);
		call_free(kept->call);
	}
}
