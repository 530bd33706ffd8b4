/*-------------------------------------------------------------------------
 *
 * loop.c
 *	  The loop that moves pulls over the network and into the tables.
 *
 * pull.c decides, call.c carries, store.c writes; this file only connects
 * them.  The next page is asked for before the last one is stored, so that the
 * tenant works while we do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "item.h"
#include "loop.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

/* Below this many items a page says nothing about the share of bad ones. */
#define MIN_ITEMS_FOR_SHARE 10

typedef struct LoopState
{
	const Tenant *tenant;
	CallSet    *calls;
	JobRun	   *run;
	Pull	   *pull;
	const LoopHost *host;
	MemoryContext page_cxt;		/* reset for each page */
} LoopState;

static void
start_fetch(LoopState *s, const PullFetch *fetch)
{
	ApiStatusQuery query = {0};
	CallSpec	spec;

	query.limit = fetch->limit;
	query.count = fetch->count;
	query.filters = fetch->after ? api_filter_after(NULL, fetch->after) : NULL;
	api_status(&spec, s->tenant, &query);
	spec.patient = true;
	(void) call_start(s->calls, &spec);
	/* let it go out now: nobody may wait for a while */
	call_advance(s->calls);
}

/* Ask for what the pull wants next; false when it wants nothing any more. */
static bool
fetch_next(LoopState *s)
{
	PullFetch	fetch;
	PullAction	action;

	while ((action = pull_next(s->pull, &fetch)) == PULL_FETCH)
		start_fetch(s, &fetch);
	return action != PULL_DONE;
}

/* The run ends here: note it, commit, and raise what ended it. */
static void
fail_run(LoopState *s, const ApiError *error)
{
	job_finish(s->run, call_counts(s->calls), error->message);
	s->host->commit(s->host->arg);
	api_error_raise(error);
}

static const ApiError *
bad_answer(const LoopState *s, Call *call, const char *problem)
{
	return api_error_bad_answer(s->tenant, "list access request statuses",
								call_response(call), problem, false);
}

JsonSpan *
loop_cut(const Tenant *tenant, Call *call, int *nitems)
{
	HttpResponse *response = call_response(call);
	JsonSpan   *items;
	const char *problem;

	if (!json_cut_page(response->body, response->body_len, ITEM_ID_KEY, &items, nitems, &problem))
		api_error_raise(api_error_bad_answer(tenant, "list access request statuses",
											 response, problem, false));
	return items;
}

/* The id of the last item that has one. */
static void
note_last_id(PullPage *page, const JsonSpan *items, int nitems)
{
	for (int i = nitems - 1; i >= 0 && page->last_id == NULL; i--)
	{
		if (items[i].problem != NULL && items[i].id != NULL &&
			!json_valid_utf8(items[i].id, items[i].id_len))
			continue;
		page->last_id = items[i].id;
		page->last_id_len = items[i].id_len;
	}
}

/*
 * A page most of whose items cannot be stored ends the run, with the items in
 * quarantine and the cursor before it, so that the next pull meets it again.
 */
static void
check_share(LoopState *s, const StoreCounts *page)
{
	ApiError   *e;

	if (page->seen < MIN_ITEMS_FOR_SHARE || page->quarantined * 2 <= page->seen)
		return;
	e = palloc0(sizeof(ApiError));
	e->sqlstate = ERRCODE_DATA_EXCEPTION;
	e->message = psprintf("could not store " INT64_FORMAT " of the " INT64_FORMAT " items of a page from server \"%s\"",
						  page->quarantined, page->seen, s->tenant->server);
	e->hint = "Table accessreq.quarantined_item has the items and their errors.";
	fail_run(s, e);
}

static void
store_call(LoopState *s, Call *call, JsonSpan *items, int nitems, const char *cursor)
{
	StorePage	page = {0};
	StoreCounts counts = {0};
	StoreCounts *sum = &s->run->counts;

	page.server = s->tenant->server;
	page.serverid = s->tenant->serverid;
	page.run_id = s->run->run_id;
	page.in_pull = true;
	page.keep_raw = s->run->keep_raw;
	page.sent_at = call_response(call)->sent_at;
	page.items = items;
	page.nitems = nitems;
	store_lock_page(page.serverid);
	store_page(&page, &counts, NULL, NULL);
	sum->seen += counts.seen;
	sum->added += counts.added;
	sum->changed += counts.changed;
	sum->quarantined += counts.quarantined;
	sum->replaced += counts.replaced;
	s->run->pages++;
	check_share(s, &counts);
	job_note_page(s->run, call_counts(s->calls), cursor);
	s->host->commit(s->host->arg);
}

/*
 * A page has come: hand it to the pull, ask for the next, store it.  The
 * cursor is the one after this page, whatever was asked for since.
 */
static void
take_page(LoopState *s, Call *call)
{
	HttpResponse *response = call_response(call);
	const ApiError *error = call_error(call);
	PullPage	page = {0};
	JsonSpan   *items = NULL;
	int			nitems = 0;
	const char *problem;
	StringInfoData cursor;

	if (error != NULL && !error->past_end)
		fail_run(s, error);
	if (error == NULL &&
		!json_cut_page(response->body, response->body_len, ITEM_ID_KEY, &items, &nitems, &problem))
		fail_run(s, bad_answer(s, call, problem));
	page.nitems = nitems;
	page.total = response->total_count;
	page.past_end = error != NULL;
	note_last_id(&page, items, nitems);
	problem = pull_page(s->pull, &page);
	if (problem != NULL)
		fail_run(s, bad_answer(s, call, problem));
	initStringInfo(&cursor);
	pull_cursor(s->pull, &cursor);
	(void) fetch_next(s);
	if (nitems > 0)
		store_call(s, call, items, nitems, cursor.data);
	s->host->progress(s->host->arg, s->run, pull_progress(s->pull));
}

void
loop_pull(const Tenant *tenant, CallSet *calls, JobRun *run, const LoopHost *host)
{
	LoopState	state = {tenant, calls, run, pull_create(run->cursor), host, NULL};
	MemoryContext old = CurrentMemoryContext;

	state.page_cxt = AllocSetContextCreate(old, "accessreq page", ALLOCSET_DEFAULT_SIZES);
	while (fetch_next(&state))
	{
		Call	   *call = call_wait(calls, -1);

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(state.page_cxt);
		take_page(&state, call);
		call_free(call);
		MemoryContextSwitchTo(old);
		MemoryContextReset(state.page_cxt);
	}
	MemoryContextDelete(state.page_cxt);
	/* one that was taken up has not seen what stood before its cursor */
	if (run->is_owner && run->cursor == NULL)
		store_finish_scan(run->server, run->started);
	job_finish(run, call_counts(calls), NULL);
	host->commit(host->arg);
}

/* ------------------------------------------------------------- by request id */

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
	query.filters = api_filter_after(batch->filter, after);
	api_status(&spec, tenant, &query);
	spec.tag = batch;
	(void) call_start(calls, &spec);
}

/*
 * One page of a batch.  More may be behind any but one that is empty, or short
 * and the last by the tenant's count.  True when the batch is complete.
 */
static bool
take_batch_page(const Tenant *tenant, CallSet *calls, Call *call, LoopPage take, void *arg)
{
	Batch	   *batch = call_tag(call);
	PullPage	page = {0};
	JsonSpan   *items;
	int			nitems;
	bool		more;

	if (call_error(call) != NULL && !call_error(call)->past_end)
		api_error_raise(call_error(call));
	if (call_error(call) != NULL)
	{
		call_free(call);
		return true;
	}
	items = loop_cut(tenant, call, &nitems);
	note_last_id(&page, items, nitems);
	if (batch->after == NULL)
		batch->total = call_response(call)->total_count;
	batch->seen += nitems;
	more = page.last_id != NULL &&
		(nitems >= API_MAX_PAGE || batch->total < 0 || batch->seen < batch->total);
	if (more && batch->after != NULL && strlen(batch->after) == page.last_id_len &&
		memcmp(batch->after, page.last_id, page.last_id_len) == 0)
		api_error_raise(api_error_bad_answer(tenant, "list access request statuses",
											 call_response(call), PULL_STANDS_STILL, false));
	if (more)
		start_batch(tenant, calls, batch, pnstrdup(page.last_id, page.last_id_len));
	take(arg, call, items, nitems);
	return !more;
}

void
loop_status_of(const Tenant *tenant, CallSet *calls, const char *const *ids, int nids,
			   LoopPage take, void *arg)
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

			batch->filter = api_filter_requests(ids + next, n);
			start_batch(tenant, calls, batch, NULL);
			next += n;
			under_way++;
		}
		call = call_wait(calls, -1);
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
		   LoopOutcome report, void *arg)
{
	StorePage	page = {0};
	StoreCounts counts = {0};
	StoreOutcome *outcomes;
	int			noutcomes;

	page.server = tenant->server;
	page.serverid = tenant->serverid;
	page.keep_raw = keep_raw;
	page.sent_at = call_response(kept->call)->sent_at;
	page.items = kept->items;
	page.nitems = kept->nitems;
	store_page(&page, &counts, &outcomes, &noutcomes);
	for (int i = 0; i < noutcomes; i++)
		report(arg, &outcomes[i]);
}

void
loop_refresh(const Tenant *tenant, const char *tenant_name, CallSet *calls, const char *const *ids, int nids,
			 LoopOutcome report, void *arg)
{
	List	   *pages = NIL;
	ListCell   *cell;
	bool		keep_raw;

	loop_status_of(tenant, calls, ids, nids, keep_page, &pages);
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
