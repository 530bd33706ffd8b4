/*-------------------------------------------------------------------------
 *
 * loop.c
 *	  The loop that moves pulls over the network and into the tables.
 *
 * pull.c decides, call.c carries, store.c writes; this file only connects
 * them.  The next page is asked for before the last one is stored, so that the
 * tenant works while we do.
 *
 * Pages are stored in the order in which they came: a window's last page says
 * that the window is stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "acted.h"
#include "api.h"
#include "dates.h"
#include "footing.h"
#include "idset.h"
#include "item.h"
#include "lib/ilist.h"
#include "loop.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "stored.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* Below this many items a page says nothing about the share of bad ones. */
#define MIN_ITEMS_FOR_SHARE 10

/* Of a tenant that does not take a date in the form it had, among others. */
#define HTTP_BAD_REQUEST 400

/* Access requests that nothing is known of, of which a cycle reads so many first. */
#define MAX_UNKNOWN_ACTED 10

/*
 * Pages that may wait to be stored before no other is asked for: one is stored
 * while the next is on its way.
 */
#define MAX_WAITING_PAGES 1

/* A page that has come and is not stored yet. */
typedef struct LoopPage
{
	dlist_node	node;
	MemoryContext cxt;			/* of this page; reset with it */
	Call	   *call;
	PullLane   *lane;
	PullStep	step;
	JsonSpan   *items;
	int			nitems;
	bool		ends;			/* the last of a window */
} LoopPage;

/* What is asked for, until it comes back; without a lane: by the probe of dates. */
typedef struct LoopFetch
{
	dlist_node	node;
	LoopRun    *loop;
	Call	   *call;
	PullLane   *lane;
	PullStep	step;
	bool		wants_times;
	bool		dated;
} LoopFetch;

/* What a window should return, and has not yet. */
typedef struct LoopWindow
{
	dlist_node	node;
	PullLane   *lane;
	IdSet	   *expected;
} LoopWindow;

struct LoopRun
{
	MemoryContext cxt;
	const Tenant *tenant;
	CallSet    *calls;
	JobRun	   *run;
	int64		patience_us;	/* of its calls */
	DateProbe	probe;			/* before the pull where it has to be */
	bool		presumes;		/* a scan whose first page tells the same */
	Pull	   *pull;			/* NULL while the probe is under way */
	dlist_head	fetches;		/* LoopFetch, under way */
	dlist_head	pages;			/* LoopPage */
	int			npages;
	dlist_head	windows;		/* LoopWindow */
	IdSet	   *returned;		/* by a cycle's steps */
	LoopEnd		end;
	const char *error;			/* why it failed */
	const ApiError *api_error;	/* the same where the tenant said it */
	int64		retry_us;
	bool		again;			/* may trying again help? */
};

/* -------------------------------------------------------------------- its plan */

/* Requests that sessions acted on: stored items, and what is not stored yet. */
static void
plan_acted(LoopRun *loop, PullPlan *plan)
{
	IdSet	   *acted = acted_recently(loop->tenant->serverid, loop->cxt);
	IdSet	   *items,
			   *found;
	const char **requests;
	const char **unknown;
	int			n;

	if (idset_size(acted) == 0)
		return;
	items = idset_create(loop->cxt, idset_size(acted));
	found = idset_create(loop->cxt, idset_size(acted));
	requests = idset_ids(acted);
	n = (int) idset_size(acted);
	stored_items_of(loop->run->server, requests, n, items, found);
	plan->acted_items = idset_ids(items);
	plan->nacted_items = (int) idset_size(items);
	unknown = palloc(sizeof(char *) * MAX_UNKNOWN_ACTED);
	for (int i = 0; i < n && plan->nacted_requests < MAX_UNKNOWN_ACTED; i++)
	{
		if (!idset_has(found, requests[i], strlen(requests[i])))
			unknown[plan->nacted_requests++] = requests[i];
	}
	plan->acted_requests = unknown;
	plan->requests_per_filter = api_ids_per_filter(loop->tenant);
}

static void
plan_pull(LoopRun *loop)
{
	MemoryContext old = MemoryContextSwitchTo(loop->cxt);
	JobRun	   *run = loop->run;
	PullPlan	plan = {0};
	Pull	   *pull;

	plan.kind = run->kind;
	plan.max_concurrency = loop->tenant->max_concurrency;
	plan.now = GetCurrentTimestamp();
	plan.dates = loop->presumes ? DATES_QUOTED : run->dates;
	plan.created_watermark = run->marks.created_watermark;
	plan.modified_watermark = run->marks.modified_watermark;
	plan.null_modified = run->marks.null_modified;
	plan.marks = run->is_owner;
	plan.missing_limit = accessreq_missing_limit;
	plan.cursor = run->cursor;
	if (run->kind == PULL_CYCLE)
		plan_acted(loop, &plan);
	pull = pull_create(&plan);
	run->before = pull_progress(pull).seen;
	if (run->kind == PULL_SCAN && run->is_owner && !pull_was_resumed(pull))
		stored_forget_candidates(run->server);
	loop->pull = pull;
	MemoryContextSwitchTo(old);
}

/*
 * Has the tenant to be asked first how it takes dates?  Where it took none it is
 * asked again by each scan.  A cycle that has no watermark filters by no date.
 */
static bool
needs_probe(const JobRun *run)
{
	if (run->kind == PULL_CYCLE)
		return run->dates == DATES_UNKNOWN && run->marks.created_watermark != DT_NOBEGIN;
	return run->dates == DATES_UNKNOWN || (run->dates == DATES_NEITHER && run->cursor == NULL);
}

LoopRun *
loop_open(const Tenant *tenant, CallSet *calls, JobRun *run, int64 patience_us)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq pull",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LoopRun    *loop = palloc0(sizeof(LoopRun));

	loop->cxt = cxt;
	loop->tenant = tenant;
	loop->calls = calls;
	loop->run = run;
	loop->patience_us = patience_us;
	loop->returned = idset_create(cxt, API_MAX_PAGE);
	dlist_init(&loop->fetches);
	dlist_init(&loop->pages);
	dlist_init(&loop->windows);
	loop->presumes = needs_probe(run) && run->kind == PULL_SCAN && run->cursor == NULL;
	if (loop->presumes || !needs_probe(run))
		plan_pull(loop);
	MemoryContextSwitchTo(old);
	return loop;
}

void
loop_close(LoopRun *loop)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &loop->pages)
		call_free(dlist_container(LoopPage, node, iter.cur)->call);
	dlist_foreach_modify(iter, &loop->fetches)
		call_free(dlist_container(LoopFetch, node, iter.cur)->call);
	MemoryContextDelete(loop->cxt);
}

LoopEnd
loop_end(const LoopRun *loop)
{
	return loop->end;
}

PullProgress
loop_progress(const LoopRun *loop)
{
	PullProgress none = {0, -1};

	return loop->pull ? pull_progress(loop->pull) : none;
}

const char *
loop_error(const LoopRun *loop)
{
	return loop->error;
}

void
loop_raise(const LoopRun *loop)
{
	if (loop->api_error != NULL)
		api_error_raise(loop->api_error);
	ereport(ERROR,
			(errcode(loop->again ? ERRCODE_DATA_EXCEPTION : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not pull from server \"%s\": %s", loop->tenant->server, loop->error),
			 loop->again ?
			 errhint("Table accessreq.quarantined_item has the items and their errors.") :
			 errhint("Nothing was marked missing. If the token may see all requests and the rows are really gone, raise accessreq.missing_limit for one CALL accessreq.sync(…, full_scan => true).")));
}

/* ---------------------------------------------------------------------- its end */

static void
fail(LoopRun *loop, const char *error, bool again)
{
	if (loop->end != LOOP_GOES_ON)
		return;
	loop->end = LOOP_FAILED;
	loop->error = MemoryContextStrdup(loop->cxt, error);
	loop->again = again;
}

static void
fail_by_tenant(LoopRun *loop, Call *call, const ApiError *error)
{
	MemoryContext old;

	if (loop->end != LOOP_GOES_ON)
		return;
	fail(loop, error->message, true);
	/* the call is freed before the error is raised */
	old = MemoryContextSwitchTo(loop->cxt);
	loop->api_error = api_error_copy(error);
	MemoryContextSwitchTo(old);
	loop->retry_us = call_limited_us(call);
}

static void
fail_by_answer(LoopRun *loop, Call *call, const char *problem)
{
	fail_by_tenant(loop, call,
				   api_error_bad_answer(loop->tenant, "list access request statuses",
										call_response(call), problem, false));
}

static void stand(LoopRun *loop);

/* To be written down with the next page, or the run's end. */
static void
learn_dates(JobRun *run, DateForm dates)
{
	if (run->dates == dates)
		return;
	run->dates = dates;
	run->dates_learned = true;
}

void
loop_finish(LoopRun *loop)
{
	JobRun	   *run = loop->run;
	PullMarks	marks;

	if (loop->end == LOOP_SUCCEEDED)
		stand(loop);
	if (run->dates_failed)
		learn_dates(run, DATES_UNKNOWN);
	if (run->dates_learned)
		job_note_dates(run);
	if (loop->end == LOOP_FAILED)
	{
		job_fail(run, loop->error, loop->retry_us, loop->again);
		return;
	}
	run->short_rows = pull_short(loop->pull);
	marks = pull_marks(loop->pull);
	/* one that was taken up has not met what stood in its first windows */
	if (run->is_owner && run->kind == PULL_SCAN && !pull_was_resumed(loop->pull) && run->short_rows == 0)
		store_finish_scan(run->server, run->started);
	job_succeed(run, &marks, run->kind == PULL_SCAN ? pull_started(loop->pull) : DT_NOBEGIN);
}

/* -------------------------------------------------------------------- asking */

static void
start_call(LoopRun *loop, LoopFetch *tag, CallSpec *spec)
{
	tag->loop = loop;
	spec->patient = true;
	spec->patience_us = loop->patience_us;
	spec->share = CALL_OF_PULL;
	spec->counts = &loop->run->calls;
	spec->tag = tag;
	tag->call = call_start(loop->calls, spec);
	dlist_push_tail(&loop->fetches, &tag->node);
}

static void
start_fetch(LoopRun *loop, const PullFetch *fetch)
{
	ApiStatusQuery query = {0};
	LoopFetch  *tag = MemoryContextAllocZero(loop->cxt, sizeof(LoopFetch));
	CallSpec	spec;

	tag->lane = fetch->lane;
	tag->step = fetch->step;
	tag->wants_times = fetch->wants_times;
	tag->dated = fetch->dated;
	query.limit = fetch->limit;
	query.offset = fetch->offset;
	query.count = fetch->count;
	query.filters = fetch->filters;
	query.sorters = fetch->sorters;
	query.request_state = fetch->executing ? "EXECUTING" : NULL;
	api_status(&spec, loop->tenant, &query);
	start_call(loop, tag, &spec);
}

static LoopWindow *
find_window(LoopRun *loop, const PullLane *lane)
{
	dlist_iter	iter;

	dlist_foreach(iter, &loop->windows)
	{
		LoopWindow *window = dlist_container(LoopWindow, node, iter.cur);

		if (window->lane == lane)
			return window;
	}
	return NULL;
}

static void
forget_window(LoopRun *loop, const PullLane *lane)
{
	LoopWindow *window = find_window(loop, lane);

	if (window == NULL)
		return;
	dlist_delete(&window->node);
	idset_free(window->expected);
	pfree(window);
}

/*
 * What a window should return is read before it is asked for: what is stored
 * meanwhile is not missing.
 */
static void
open_window(LoopRun *loop, PullLane *lane)
{
	PullRange	range = pull_range(loop->pull, lane);
	LoopWindow *window;

	if (!loop->run->is_owner)
		return;
	forget_window(loop, lane);
	window = MemoryContextAlloc(loop->cxt, sizeof(LoopWindow));
	window->lane = lane;
	window->expected = idset_create(loop->cxt, API_MAX_PAGE);
	stored_range(loop->run->server, &range, window->expected);
	dlist_push_tail(&loop->windows, &window->node);
}

/* A lock that the tables want may not be had: then it is asked for later. */
static void
ask(LoopRun *loop, const PullFetch *fetch)
{
	PG_TRY();
	{
		if (fetch->begins)
			open_window(loop, fetch->lane);
		start_fetch(loop, fetch);
	}
	PG_CATCH();
	{
		pull_unfetch(loop->pull, fetch->lane);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Rows that are open here and were in no page of this cycle. */
static void
give_open(LoopRun *loop)
{
	IdSet	   *open = idset_create(CurrentMemoryContext, API_MAX_PAGE);
	const char **ids;
	int			n = 0;

	stored_open(loop->run->server, open);
	ids = idset_ids(open);
	for (long i = 0; i < idset_size(open); i++)
	{
		if (!idset_has(loop->returned, ids[i], strlen(ids[i])))
			ids[n++] = ids[i];
	}
	pull_give_open(loop->pull, ids, n);
	idset_free(open);
}

static void
give_missing(LoopRun *loop)
{
	PullMissing missing;
	PullRange	range;
	const char *problem;

	if (pull_left_out(loop->pull, &range))
	{
		IdSet	   *ids = idset_create(CurrentMemoryContext, API_MAX_PAGE);

		stored_range(loop->run->server, &range, ids);
		stored_add_candidates(loop->run->server, loop->run->run_id,
							  idset_ids(ids), (int) idset_size(ids));
	}
	missing = stored_candidates(loop->run->server);
	problem = pull_give_missing(loop->pull, &missing);
	if (problem != NULL)
		fail(loop, problem, false);
}

/* Before anything is written for the run.  Raises what footing_check() does. */
static void
stand(LoopRun *loop)
{
	loop->tenant = footing_check(loop->run, loop->tenant, loop->cxt);
}

/* What goes before the pull: how does the tenant take dates? */
static bool
take_probe_step(LoopRun *loop)
{
	CallSpec	spec;

	if (!dlist_is_empty(&loop->fetches))
		return false;
	if (!loop->probe.done)
	{
		dates_ask(&loop->probe, loop->tenant, &spec);
		start_call(loop, MemoryContextAllocZero(loop->cxt, sizeof(LoopFetch)), &spec);
		return false;
	}
	stand(loop);
	learn_dates(loop->run, loop->probe.form);
	plan_pull(loop);
	return true;
}

/*
 * One thing that the pull wants, other than to wait.  False: nothing.  What is
 * read and written for it is this transaction's.
 */
static bool
take_step(LoopRun *loop)
{
	PullFetch	fetch;

	if (loop->pull == NULL)
		return take_probe_step(loop);
	switch (pull_next(loop->pull, &fetch))
	{
		case PULL_FETCH:
			ask(loop, &fetch);
			return true;
		case PULL_ASK_OPEN:
			give_open(loop);
			return true;
		case PULL_ASK_MISSING:
			/* windows whose last page is not stored have no candidates yet */
			if (loop->npages > 0)
				return false;
			give_missing(loop);
			return loop->end == LOOP_GOES_ON;
		case PULL_MARK:
			if (loop->npages > 0)
				return false;
			store_lock_page(loop->tenant->serverid);
			stand(loop);
			loop->run->missing = stored_mark_missing(loop->run->server);
			pull_marked(loop->pull);
			return true;
		case PULL_WAIT:
			return false;
		case PULL_DONE:
			loop->end = LOOP_SUCCEEDED;
			return false;
	}
	return false;
}

void
loop_fetch(LoopRun *loop)
{
	MemoryContext cxt = AllocSetContextCreate(loop->cxt, "accessreq pull step",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);

	while (loop->end == LOOP_GOES_ON && loop->npages <= MAX_WAITING_PAGES && take_step(loop))
		MemoryContextReset(cxt);
	/* let it go out now: nobody may wait for a while */
	call_advance(loop->calls);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* -------------------------------------------------------------- a page comes */

/* The two times of an item, which the cut does not read. */
static void
read_times(const JsonSpan *span, PullItem *item, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	StatusItem	decoded;
	const char *problem;

	if (span->problem == NULL &&
		item_decode(span->start, span->len, cxt, &decoded, &problem))
	{
		item->created = decoded.created;
		item->modified = decoded.modified;
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(cxt);
}

/* What the pull needs to know of a page's items. */
static PullItem *
describe_items(const LoopPage *page, bool wants_times)
{
	PullItem   *items = palloc0(sizeof(PullItem) * Max(page->nitems, 1));
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq item",
											  ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < page->nitems; i++)
	{
		const JsonSpan *span = &page->items[i];

		items[i].created = items[i].modified = DT_NOBEGIN;
		if (json_has_id(span))
		{
			items[i].id = span->id;
			items[i].id_len = span->id_len;
		}
		if (wants_times)
			read_times(span, &items[i], cxt);
	}
	MemoryContextDelete(cxt);
	return items;
}

/* These ids are not missing. */
static void
note_returned(LoopRun *loop, const LoopPage *page, const PullItem *items)
{
	LoopWindow *window = find_window(loop, page->lane);

	for (int i = 0; i < page->nitems; i++)
	{
		if (items[i].id == NULL)
			continue;
		if (window != NULL)
			idset_remove(window->expected, items[i].id, items[i].id_len);
		if (loop->run->kind == PULL_CYCLE)
			(void) idset_add(loop->returned, items[i].id, items[i].id_len);
	}
}

/* Hand a page to the pull.  False: it ends the run, which has its error. */
static bool
hand_in(LoopRun *loop, LoopPage *page, const LoopFetch *fetch)
{
	HttpResponse *response = call_response(page->call);
	const ApiError *error = call_error(page->call);
	PullPage	p = {0};
	const char *problem;

	if (error != NULL && !error->past_end)
	{
		loop->run->dates_failed |= error->status == HTTP_BAD_REQUEST;
		fail_by_tenant(loop, page->call, error);
		return false;
	}
	if (error == NULL &&
		!json_cut_page(response->body, response->body_len, ITEM_ID_KEY,
					   &page->items, &page->nitems, &problem))
	{
		fail_by_answer(loop, page->call, problem);
		return false;
	}
	p.lane = fetch->lane;
	p.nitems = page->nitems;
	p.items = describe_items(page, fetch->wants_times);
	p.total = response->total_count;
	p.refused = error != NULL;
	p.date = response->date;
	loop->run->dates_failed |= fetch->dated && page->nitems == 0;
	problem = pull_page(loop->pull, &p, &page->ends);
	if (problem == NULL)
	{
		note_returned(loop, page, p.items);
		return true;
	}
	/* said by the counts, or by a page that cannot be right */
	if (fetch->step == PULL_STEP_MEASURE)
		fail(loop, problem, false);
	else
		fail_by_answer(loop, page->call, problem);
	return false;
}

/* True where it was the probe's alone, and not a page of the pull. */
static bool
take_probed(LoopRun *loop, Call *call, const LoopFetch *fetch)
{
	const ApiError *error;

	if (fetch->lane != NULL && !loop->presumes)
		return false;
	error = dates_answer(&loop->probe, loop->tenant, call);
	if (fetch->lane == NULL && error != NULL)
		fail_by_tenant(loop, call, error);
	if (fetch->lane == NULL)
		return true;

	/*
	 * A scan begins by asking for the newest row that has a date, as the probe
	 * would, by a quoted one.  There is one, or the scan is planned anew once
	 * the other questions are answered.
	 */
	loop->presumes = false;
	if (loop->probe.done)
		learn_dates(loop->run, loop->probe.form);
	if (error != NULL || loop->probe.done)
		return false;
	loop->pull = NULL;
	return true;
}

LoopRun *
loop_take(Call *call)
{
	LoopFetch  *fetch = call_tag(call);
	LoopRun    *loop = fetch->loop;
	MemoryContext cxt = AllocSetContextCreate(loop->cxt, "accessreq page",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LoopPage   *page = palloc0(sizeof(LoopPage));
	bool		store;

	dlist_delete(&fetch->node);
	page->cxt = cxt;
	page->call = call;
	page->lane = fetch->lane;
	page->step = fetch->step;
	store = !take_probed(loop, call, fetch) && loop->end == LOOP_GOES_ON &&
		hand_in(loop, page, fetch) &&
		(page->ends || (page->nitems > 0 && page->step != PULL_STEP_MEASURE));
	MemoryContextSwitchTo(old);
	if (store)
	{
		dlist_push_tail(&loop->pages, &page->node);
		loop->npages++;
	}
	else
	{
		call_free(call);
		MemoryContextDelete(cxt);
	}
	pfree(fetch);
	return loop;
}

/* ------------------------------------------------------------------- storing */

bool
loop_has_page(const LoopRun *loop)
{
	return loop->npages > 0;
}

/*
 * A page most of whose items cannot be stored ends the run, with the items in
 * quarantine and the cursor before it, so that the next pull meets it again.
 */
static bool
is_mostly_bad(LoopRun *loop, const StoreCounts *page)
{
	if (page->seen < MIN_ITEMS_FOR_SHARE || page->quarantined * 2 <= page->seen)
		return false;
	fail(loop, psprintf(INT64_FORMAT " of the " INT64_FORMAT " items of a page cannot be stored",
						page->quarantined, page->seen), true);
	return true;
}

/* The rows of a window that it did not return, once its last page is stored. */
static void
end_window(LoopRun *loop, LoopPage *page)
{
	LoopWindow *window = find_window(loop, page->lane);

	pull_window_stored(loop->pull, page->lane);
	if (window == NULL)
		return;
	stored_add_candidates(loop->run->server, loop->run->run_id,
						  idset_ids(window->expected), (int) idset_size(window->expected));
}

/* What was a candidate and came back is none. */
static void
keep_returned(LoopRun *loop, const LoopPage *page)
{
	const char **ids = palloc(sizeof(char *) * Max(page->nitems, 1));
	int			n = 0;

	for (int i = 0; i < page->nitems; i++)
	{
		if (json_has_id(&page->items[i]))
			ids[n++] = pnstrdup(page->items[i].id, page->items[i].id_len);
	}
	stored_drop_candidates(loop->run->server, ids, n);
}

static void
store_items(LoopRun *loop, LoopPage *page, StoreCounts *counts)
{
	JobRun	   *run = loop->run;
	StorePage	p = {0};

	p.server = run->server;
	p.serverid = loop->tenant->serverid;
	p.run_id = run->run_id;
	p.in_pull = true;
	p.keep_raw = run->keep_raw;
	p.keep_since = run->keep_since;
	p.sent_at = call_response(page->call)->sent_at;
	p.items = page->items;
	p.nitems = page->nitems;
	store_page(&p, counts, NULL, NULL);
}

static void
add_up(StoreCounts *sum, const StoreCounts *page)
{
	sum->seen += page->seen;
	sum->added += page->added;
	sum->changed += page->changed;
	sum->quarantined += page->quarantined;
	sum->replaced += page->replaced;
}

/* Store the page and what goes with it; counts and cursor are of after it. */
static void
write_page(LoopRun *loop, LoopPage *page, StoreCounts *counts)
{
	JobRun	   *run = loop->run;
	StringInfoData cursor;
	bool		wrote;

	/* first what may be waited for, and nothing held meanwhile */
	store_lock_page(loop->tenant->serverid);
	stand(loop);
	if (page->nitems > 0)
		store_items(loop, page, counts);
	wrote = counts->added + counts->changed + counts->quarantined > 0;
	if (page->step == PULL_STEP_RECHECK)
		keep_returned(loop, page);
	add_up(&run->counts, counts);
	run->pages += page->nitems > 0;
	run->total = pull_progress(loop->pull).total;
	if (is_mostly_bad(loop, counts))
		return;
	if (page->ends)
		end_window(loop, page);
	if (run->kind == PULL_SCAN)
	{
		initStringInfo(&cursor);
		if (page->ends)
			pull_cursor(loop->pull, &cursor);
		job_note_page(run, page->ends ? cursor.data : NULL);
	}
	else if (wrote)
		job_note_run(run);
	if (run->dates_learned)
	{
		job_note_dates(run);
		run->dates_learned = false;
	}
	job_notify(run->server, run->run_id, counts);
}

static void
forget_page(LoopRun *loop)
{
	LoopPage   *page = dlist_container(LoopPage, node, dlist_pop_head_node(&loop->pages));

	loop->npages--;
	if (page->ends)
		forget_window(loop, page->lane);
	call_free(page->call);
	MemoryContextDelete(page->cxt);
}

/*
 * In a subtransaction: what goes wrong leaves the transaction, with the pull's
 * lock, and the page as they were.
 */
ErrorData *
loop_store(LoopRun *loop)
{
	LoopPage   *page = dlist_container(LoopPage, node, dlist_head_node(&loop->pages));
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext old = CurrentMemoryContext;
	JobRun		before = *loop->run;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(page->cxt);
	PG_TRY();
	{
		StoreCounts counts = {0};

		write_page(loop, page, &counts);
		MemoryContextSwitchTo(page->cxt);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		*loop->run = before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	if (error == NULL)
		forget_page(loop);
	return error;
}

void
loop_fail(LoopRun *loop, const char *error)
{
	fail(loop, error, true);
}
