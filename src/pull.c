/*-------------------------------------------------------------------------
 *
 * pull.c
 *	  Which pages a pull asks for, in which order, and when it stops: a state
 *	  machine without input or output.
 *
 * The API has no feed of changes, and pages by offset drift while rows come
 * and go, so a pull is made of steps that each close what the others leave
 * open.  A cycle, every minute or so:
 *
 * - First what sessions just acted on, by id: they will look at it.
 *
 * - 1, the open rows, by accountActivityItemId.  Nearly all that happens
 *	 happens to them, and not all of it moves "modified".  By id, because the id
 *	 of a row that stands still does not move: no page can pass it by.
 *
 * - 2, new rows, by "created" ascending from the watermark less an overlap:
 *	 what is created meanwhile comes behind, and what became visible late is
 *	 within the overlap.  Where the tenant takes no dates in filters, by "created"
 *	 descending down to there.
 *
 * - 3, changed rows, by "modified" descending from the head to the watermark
 *	 less the overlap.  It can be sorted by and not filtered by, so this is the
 *	 one step that has to go by offset; each page therefore begins within the
 *	 one before it.
 *
 * - 4, what is open here and was in none of these: it is open no more, or open
 *	 in a way that 1 does not list.  By id.
 *
 * And once a day or so, and at first, a scan of everything (5), which finds the
 * changes that move no date and the rows that are gone.  It goes in windows over
 * "created", several at once, each by id within; a window is the unit in which
 * it is taken up.  What has no date is in no window: it is read from the end of
 * the order by "created" where it is, or, where only the counts say that there is
 * such, by a pass over everything by id.  Where the tenant takes no dates in
 * filters there is one window, which is everything by id.  What windows did
 * not return is read once more by id before it is marked missing, and nothing
 * is where too much would be: a token that lost rights sees fewer rows.
 *
 * A list ends with an empty page, or with a short one whose own count says that
 * it is all.  A short page alone does not end it: a tenant that cuts pages shorter
 * than they are asked for would make us stop early; and neither does the count
 * of an earlier page, because rows come in between.
 *
 * But an empty page may be a lie, and so may the order: gateways cut lists, and a
 * tenant may order ids otherwise than it compares them.  The count is the only
 * cross-check there is.  A list by id that brought fewer rows than it was said to
 * have is counted again, because rows go; where it is short of that too it is
 * read once more, by offset in the order of "created".  What it is short of then is
 * told, and nothing is marked missing.
 *
 * And a page may be any: a gateway may drop the offset, or the filter.  So each walk
 * is bounded by the rows that it has been shown: pages that bring none end it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "filter.h"
#include "idset.h"
#include "item.h"
#include "json.h"
#include "lib/ilist.h"
#include "pull.h"
#include "utils/palloc.h"

/*
 * How far behind a watermark a cycle looks again: rows of transactions that
 * took that long in the tenant, and clocks of its machines that differ.
 */
#define OVERLAP_US (5 * 60 * USECS_PER_SEC)

/*
 * Rows in a window of a scan.  A window that was broken off is read again, and
 * the ids of what is stored in it are kept in memory: neither may be large.
 * Each costs a request for where it begins, so they may not be small either.
 */
#define DEFAULT_WINDOW_ROWS 10000
#define MAX_WINDOWS 1000

/*
 * Rows by which a page of step 3 begins within the one before it.  So many
 * rows may vanish from what was read, and none behind is missed.
 */
#define ANCHOR_ROWS 10

/* How often step 3 goes back because a page did not join the one before. */
#define MAX_STEPS_BACK 3

/* How many pages in a row may bring no row that was not there before. */
#define MAX_STALE 6

/* No tenant has so many rows, whatever its header says. */
#define MAX_TOTAL INT64CONST(1000000000)

/* How often rows are counted where the counts say that some have no date. */
#define MAX_COUNTS 3

/* What is asked for: the two ends of all, and what has a date. */
#define NUM_COUNTS 3

#define SORT_BY_ID ITEM_ID_KEY
#define SORT_BY_CREATED "created," ITEM_ID_KEY
#define SORT_NEWEST_FIRST "-created," ITEM_ID_KEY
#define SORT_CHANGED_FIRST "-modified," ITEM_ID_KEY

#define CURSOR_VERSION 2

typedef enum Phase
{
	PHASE_ACTED,
	PHASE_LISTS,				/* steps 1 to 3 */
	PHASE_ASK_OPEN,
	PHASE_UNRETURNED,
	PHASE_MEASURE,
	PHASE_BOUNDS,
	PHASE_WINDOWS,
	PHASE_COUNTS,
	PHASE_REST,
	PHASE_ASK_MISSING,
	PHASE_RECHECK,
	PHASE_MARK,
	PHASE_DONE
} Phase;

/* How a list by id that ended short is read once more. */
typedef enum Again
{
	AGAIN_NOT,
	AGAIN_COUNT,				/* it is counted: one row is asked for */
	AGAIN_PAGES					/* it is read by offset */
} Again;

/* One list of the tenant's, read page by page, one page at a time. */
struct PullLane
{
	dlist_node	node;			/* in Pull.lanes while it is not done */
	PullStep	step;
	bool		fetching;
	bool		done;
	int			number;			/* of the window, or of the measurement */
	const char *filter;			/* without what pages add to it */
	char	   *after;			/* last id seen; NULL: none */
	int64		total;			/* of the first page, -1: not told */
	int64		offset;
	IdSet	   *ids;			/* all that it was shown */
	IdSet	   *pass;			/* those of one walk through it, or of ties */
	int64		nameless;		/* that have no id, in one walk through it */
	int64		trailing;		/* and stood behind the last id of a page, so that
								 * the next page by id begins with them */
	bool		disordered;		/* ids came in another order than they are asked for */
	Again		again;
	int			stale;			/* pages in a row that brought no new one */
	bool		asked_again;	/* a page that should not have been empty */
	bool		absurd;			/* its count was one that no tenant has */
	int64		short_rows;		/* at its end: that did not come */
	bool		untold;			/* or nobody can say */

	/* step 2 */
	TimestampTz bound;
	bool		ties;			/* among rows whose created is the bound */

	/* step 3, see changed_page() */
	bool		walking;
	bool		scattered;
	int64		low;			/* rows known to lead with null modified */
	int64		high;			/* where they end at the latest, -1: unknown */
	int64		leap;
	int64		first;			/* offset of the first page that was walked */
	TimestampTz last_modified;
	char	   *anchors[ANCHOR_ROWS];
	int			nanchors;
	int			steps_back;
	bool		has_gap;		/* a page did not join, whatever was tried */
};

struct Pull
{
	MemoryContext cxt;
	PullPlan	plan;
	int			anchor_rows;	/* ANCHOR_ROWS, or what pages have room for */
	Phase		phase;
	dlist_head	lanes;
	int			under_way;		/* pages asked for */
	int			next;			/* next lane of the phase to open */
	int64		seen;
	int64		total;
	int64		short_rows;		/* that a scan's lists were said to have more */
	int64		untold;			/* lists of which nobody can say that they are whole */
	PullMarks	marks;

	/* ids of the batches of the phase */
	const char *const *ids;
	int			nids;

	/* of a scan */
	TimestampTz started;
	bool		resumed;
	int64		dated;			/* rows with a date at its start */
	int64		window_total;	/* windows, 0: not decided yet */
	TimestampTz *bounds;		/* between windows, ascending */
	int			nbounds;
	IdSet	   *bound_ids;		/* of the rows there */
	bool		beyond;			/* a bound was behind the last row */
	bool	   *stored;			/* by window */
	int64		count_all;
	const char *rest_sorters;	/* the order that rows without a date lead */
	bool		rest_scattered; /* or both ends have such */
	bool		rest_read;
	int64		count_dated;
	int			counts_asked;
	char		problem[PULL_PROBLEM_LEN];
};

/* ----------------------------------------------------------------- beginning */

static const char **
copy_ids(const char *const *ids, int nids)
{
	const char **copy = palloc(sizeof(char *) * Max(nids, 1));

	for (int i = 0; i < nids; i++)
		copy[i] = pstrdup(ids[i]);
	return copy;
}

static TimestampTz
cursor_time(const JsonValue *v)
{
	const char *text = json_string(v);

	return text ? item_parse_time(text) : DT_NOBEGIN;
}

/* The windows of a cursor, and which of them are stored. */
static bool
load_windows(Pull *pull, const JsonValue *bounds, const char *stored)
{
	int			n = json_size(bounds);
	int			i = 0;

	if (stored == NULL || strlen(stored) != (size_t) n + 1 || n >= MAX_WINDOWS)
		return false;
	pull->bounds = palloc(sizeof(TimestampTz) * Max(n, 1));
	pull->stored = palloc0(sizeof(bool) * (n + 1));
	for (const JsonValue *b = json_first(bounds); b != NULL; b = json_next(b), i++)
	{
		pull->bounds[i] = cursor_time(b);
		if (pull->bounds[i] == DT_NOBEGIN ||
			(i > 0 && pull->bounds[i] <= pull->bounds[i - 1]))
			return false;
	}
	pull->nbounds = n;
	pull->window_total = n + 1;
	for (i = 0; i <= n; i++)
	{
		pull->stored[i] = stored[i] == '1';
		pull->resumed = pull->resumed || pull->stored[i];
	}
	return true;
}

/* One of another release, or damaged: start anew, which is always right. */
static void
load_cursor(Pull *pull, const char *text)
{
	const char *problem;
	const JsonValue *c = json_parse(text, strlen(text), pull->cxt, &problem);
	int64		version;

	if (!json_get_int64(c, "version", &version) || version != CURSOR_VERSION ||
		(pull->started = cursor_time(json_get(c, "started"))) == DT_NOBEGIN ||
		!json_get_int64(c, "dated", &pull->dated) ||
		!json_get_int64(c, "total", &pull->total) ||
		!json_get_int64(c, "seen", &pull->seen) ||
		!load_windows(pull, json_get(c, "bounds"), json_get_string(c, "stored")) ||
		(pull->nbounds > 0 && !filter_takes_dates(pull->plan.dates)) ||
		!pull->resumed)
	{
		pull->resumed = false;
		pull->window_total = 0;
		pull->seen = 0;
		pull->total = -1;
		return;
	}
	if (!json_get_int64(c, "short", &pull->short_rows))
		pull->short_rows = 0;
	if (!json_get_int64(c, "untold", &pull->untold))
		pull->untold = 0;
	pull->marks.created_watermark = cursor_time(json_get(c, "newest"));
	pull->marks.modified_watermark = pull->marks.created_watermark;
	pull->phase = PHASE_WINDOWS;
}

Pull *
pull_create(const PullPlan *plan)
{
	Pull	   *pull = palloc0(sizeof(Pull));

	pull->cxt = CurrentMemoryContext;
	pull->plan = *plan;
	pull->plan.acted_items = copy_ids(plan->acted_items, plan->nacted_items);
	pull->plan.acted_requests = copy_ids(plan->acted_requests, plan->nacted_requests);
	pull->plan.cursor = NULL;
	if (plan->page_rows == 0)
		pull->plan.page_rows = API_MAX_PAGE;
	pull->anchor_rows = Min(ANCHOR_ROWS, pull->plan.page_rows / 3);
	if (plan->window_rows == 0)
		pull->plan.window_rows = DEFAULT_WINDOW_ROWS;
	dlist_init(&pull->lanes);
	pull->total = pull->dated = -1;
	pull->marks.created_watermark = pull->marks.modified_watermark = DT_NOBEGIN;
	pull->marks.null_modified = -1;
	pull->phase = plan->kind == PULL_CYCLE ? PHASE_ACTED : PHASE_MEASURE;
	if (plan->kind == PULL_SCAN && plan->cursor != NULL)
		load_cursor(pull, plan->cursor);
	if (!pull->resumed)
		pull->started = plan->now;
	return pull;
}

/* --------------------------------------------------------------------- lanes */

static PullLane *
open_lane(Pull *pull, PullStep step, const char *filter)
{
	PullLane   *lane = palloc0(sizeof(PullLane));

	lane->step = step;
	lane->filter = filter;
	lane->total = -1;
	lane->high = -1;
	lane->last_modified = DT_NOBEGIN;
	dlist_push_tail(&pull->lanes, &lane->node);
	return lane;
}

static void
close_lane(PullLane *lane)
{
	lane->done = true;
	dlist_delete(&lane->node);
	if (lane->ids != NULL)
		idset_free(lane->ids);
	if (lane->pass != NULL)
		idset_free(lane->pass);
	lane->ids = lane->pass = NULL;
}

/* Add a page's ids to a set, which is made where it is not; how many were new. */
static int
add_ids(Pull *pull, IdSet **ids, const PullPage *page)
{
	int			n = 0;

	if (*ids == NULL)
		*ids = idset_create(pull->cxt, pull->plan.page_rows);
	for (int i = 0; i < page->nitems; i++)
	{
		if (page->items[i].id != NULL &&
			idset_add(*ids, page->items[i].id, page->items[i].id_len))
			n++;
	}
	return n;
}

static void
begin_pass(PullLane *lane)
{
	if (lane->pass != NULL)
		idset_free(lane->pass);
	lane->pass = NULL;
}

/* The next batch of ids as a lane, or NULL. */
static PullLane *
open_batch(Pull *pull, PullStep step)
{
	int			most = Min(API_MAX_IDS_IN_FILTER, pull->plan.page_rows);
	int			n = Min(pull->nids - pull->next, most);
	PullLane   *lane;

	if (n <= 0)
		return NULL;
	lane = open_lane(pull, step, filter_items(pull->ids + pull->next, n));
	pull->next += n;
	return lane;
}

/* What sessions acted on: items that are stored here, then other requests. */
static PullLane *
open_acted(Pull *pull)
{
	const PullPlan *plan = &pull->plan;
	PullLane   *lane;
	int			first,
				n;

	pull->ids = plan->acted_items;
	pull->nids = plan->nacted_items;
	if ((lane = open_batch(pull, PULL_STEP_ACTED)) != NULL)
		return lane;
	first = pull->next - plan->nacted_items;
	n = Min(plan->nacted_requests - first, Max(plan->requests_per_filter, 1));
	if (n <= 0)
		return NULL;
	pull->next += n;
	return open_lane(pull, PULL_STEP_ACTED, filter_requests(plan->acted_requests + first, n));
}

/* Where a step begins: the watermark less the overlap. */
static TimestampTz
less_overlap(TimestampTz watermark)
{
	return watermark == DT_NOBEGIN ? DT_NOBEGIN : watermark - OVERLAP_US;
}

static PullLane *
open_list(Pull *pull)
{
	PullLane   *lane;

	switch (pull->next++)
	{
		case 0:
			return open_lane(pull, PULL_STEP_OPEN, NULL);
		case 1:
			lane = open_lane(pull, PULL_STEP_NEW, NULL);
			lane->bound = filter_floor(less_overlap(pull->plan.created_watermark));
			return lane;
		case 2:
			lane = open_lane(pull, PULL_STEP_CHANGED, NULL);
			/* some of the nulls: to see that they end where they did */
			lane->offset = Max(pull->plan.null_modified - pull->anchor_rows, 0);
			lane->leap = pull->plan.page_rows;
			return lane;
		default:
			return NULL;
	}
}

/* Where windows meet: rows of the list by created, each a window further. */
static PullLane *
open_bound(Pull *pull)
{
	PullLane   *lane;

	/* what was said of the number of rows was not so */
	if (pull->next >= pull->nbounds || pull->beyond)
		return NULL;
	lane = open_lane(pull, PULL_STEP_MEASURE, filter_dated(pull->plan.dates));
	lane->number = pull->next++;
	lane->offset = pull->dated * (lane->number + 1) / (pull->nbounds + 1);
	return lane;
}

static PullLane *
open_window(Pull *pull)
{
	PullRange	range;
	PullLane   *lane;

	while (pull->next < pull->window_total && pull->stored[pull->next])
		pull->next++;
	if (pull->next >= pull->window_total)
		return NULL;
	lane = open_lane(pull, PULL_STEP_WINDOW, NULL);
	lane->number = pull->next++;
	range = pull_range(pull, lane);
	lane->filter = filter_created(pull->plan.dates, range.from, range.to);
	return lane;
}

/* Both ends of the order, wherever it has rows without a date; and the counts. */
static PullLane *
open_count(Pull *pull)
{
	PullLane   *lane;

	if (pull->next >= NUM_COUNTS)
		return NULL;
	/* what is created between two counts must not look like a row without a date */
	if (pull->next == NUM_COUNTS - 1 && pull->under_way > 0)
		return NULL;
	lane = open_lane(pull, PULL_STEP_MEASURE, pull->next < 2 ? NULL : filter_dated(pull->plan.dates));
	lane->number = pull->next++;
	return lane;
}

/* The next list that the phase wants read, or NULL where all are open. */
static PullLane *
next_lane(Pull *pull)
{
	switch (pull->phase)
	{
		case PHASE_ACTED:
			return open_acted(pull);
		case PHASE_LISTS:
			return open_list(pull);
		case PHASE_UNRETURNED:
			return open_batch(pull, PULL_STEP_UNRETURNED);
		case PHASE_RECHECK:
			return open_batch(pull, PULL_STEP_RECHECK);
		case PHASE_MEASURE:
			return pull->next++ == 0 ? open_lane(pull, PULL_STEP_MEASURE, filter_dated(pull->plan.dates)) : NULL;
		case PHASE_BOUNDS:
			return open_bound(pull);
		case PHASE_WINDOWS:
			return open_window(pull);
		case PHASE_COUNTS:
			return open_count(pull);
		case PHASE_REST:
			return pull->next++ == 0 ? open_lane(pull, PULL_STEP_REST, NULL) : NULL;
		default:
			return NULL;
	}
}

/* ------------------------------------------------------------------- fetching */

static void
describe_measure(const Pull *pull, const PullLane *lane, PullFetch *fetch)
{
	fetch->limit = 1;
	fetch->offset = lane->offset;
	fetch->filters = lane->filter;
	fetch->sorters = pull->phase == PHASE_MEASURE ||
		(pull->phase == PHASE_COUNTS && lane->number == 1) ? SORT_NEWEST_FIRST : SORT_BY_CREATED;
	fetch->count = pull->phase != PHASE_BOUNDS;
	fetch->dated = lane->filter != NULL && lane->offset == 0;
	fetch->wants_times = true;
}

/*
 * The rest is read in the order in which it leads, by id as well: among rows
 * without a date, which are equal there, the id decides.
 */
static bool
leads_with_undated(const Pull *pull, const PullLane *lane)
{
	return lane->step == PULL_STEP_REST && pull->rest_sorters != NULL && !pull->rest_scattered;
}

static void
describe_new(const Pull *pull, const PullLane *lane, PullFetch *fetch)
{
	DateForm	dates = pull->plan.dates;

	fetch->wants_times = true;
	/* the newest row of the last cycle is there, on the first page */
	fetch->dated = filter_takes_dates(dates) && !lane->ties && lane->ids == NULL;
	fetch->sorters = lane->ties ? SORT_BY_ID : SORT_BY_CREATED;
	if (!filter_takes_dates(dates))
	{
		fetch->sorters = SORT_NEWEST_FIRST;
		fetch->offset = lane->offset;
	}
	else if (lane->ties)
		fetch->filters = filter_after(filter_created(dates, lane->bound, lane->bound + FILTER_UNIT_US),
									  lane->after);
	else
		fetch->filters = lane->bound == DT_NOBEGIN ? filter_dated(dates) :
			filter_created(dates, lane->bound, DT_NOBEGIN);
}

/* Ids play no part in this order where rows have dates, nor in the filter. */
static void
describe_again(const Pull *pull, const PullLane *lane, PullFetch *fetch)
{
	fetch->filters = lane->filter;
	fetch->wants_times = leads_with_undated(pull, lane);
	fetch->sorters = fetch->wants_times ? pull->rest_sorters : SORT_BY_CREATED;
	fetch->executing = lane->step == PULL_STEP_OPEN;
	if (lane->again == AGAIN_COUNT)
		fetch->limit = 1;
	else
		fetch->offset = lane->offset;
}

static void
describe(const Pull *pull, PullLane *lane, PullFetch *fetch)
{
	memset(fetch, 0, sizeof(PullFetch));
	fetch->lane = lane;
	fetch->step = lane->step;
	fetch->limit = pull->plan.page_rows;
	fetch->count = true;
	switch (lane->step)
	{
		case PULL_STEP_MEASURE:
			describe_measure(pull, lane, fetch);
			break;
		case PULL_STEP_NEW:
			describe_new(pull, lane, fetch);
			break;
		case PULL_STEP_CHANGED:
			fetch->sorters = SORT_CHANGED_FIRST;
			fetch->offset = lane->offset;
			fetch->wants_times = true;
			break;
		default:
			if (lane->again != AGAIN_NOT)
			{
				describe_again(pull, lane, fetch);
				break;
			}
			fetch->filters = lane->filter == NULL && lane->after == NULL ? NULL :
				filter_after(lane->filter, lane->after);
			fetch->sorters = leads_with_undated(pull, lane) ? pull->rest_sorters : SORT_BY_ID;
			fetch->wants_times = leads_with_undated(pull, lane);
			fetch->executing = lane->step == PULL_STEP_OPEN;
			fetch->count = lane->after == NULL;
			fetch->begins = lane->after == NULL &&
				(lane->step == PULL_STEP_WINDOW || lane->step == PULL_STEP_REST);
			break;
	}
}

static PullLane *
idle_lane(Pull *pull)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pull->lanes)
	{
		PullLane   *lane = dlist_container(PullLane, node, iter.cur);

		if (!lane->fetching)
			return lane;
	}
	return NULL;
}

/* -------------------------------------------------------------------- phases */

static void
enter(Pull *pull, Phase phase)
{
	pull->phase = phase;
	pull->next = 0;
}

static int
compare_times(const void *a, const void *b)
{
	TimestampTz x = *(const TimestampTz *) a;
	TimestampTz y = *(const TimestampTz *) b;

	return (x > y) - (x < y);
}

/* The bounds have come, in any order and some of them equal or not at all. */
static void
settle_windows(Pull *pull)
{
	int			n = 0;

	qsort(pull->bounds, pull->nbounds, sizeof(TimestampTz), compare_times);
	for (int i = 0; i < pull->nbounds; i++)
	{
		TimestampTz t = filter_floor(pull->bounds[i]);

		if (t != DT_NOBEGIN && (n == 0 || t > pull->bounds[n - 1]))
			pull->bounds[n++] = t;
	}
	pull->nbounds = n;
	pull->window_total = n + 1;
	pull->stored = palloc0(sizeof(bool) * (n + 1));
	enter(pull, PHASE_WINDOWS);
}

/*
 * The size is known: how many windows?  As many as there are lanes, or several
 * times that: windows are of one size and go through together, and one that is
 * left over would be read alone, page after page.
 */
static void
plan_windows(Pull *pull)
{
	int64		rows = pull->plan.window_rows;
	int64		lanes = pull->plan.max_concurrency;
	int64		n = pull->dated <= 0 || !filter_takes_dates(pull->plan.dates) ? 1 :
		(pull->dated + rows - 1) / rows;

	if (n > 1)
		n = (n + lanes - 1) / lanes * lanes;
	n = Min(n, MAX_WINDOWS);
	pull->nbounds = (int) n - 1;
	pull->bounds = palloc0(sizeof(TimestampTz) * Max(pull->nbounds, 1));
	for (int i = 0; i < pull->nbounds; i++)
		pull->bounds[i] = DT_NOBEGIN;
	if (pull->nbounds > 0)
		enter(pull, PHASE_BOUNDS);
	else
		settle_windows(pull);
}

/*
 * Windows leave out what has no date.  A row like that which stands still is at
 * an end of the order whatever happens meanwhile; counting is for a tenant that
 * has them elsewhere, and repeated, because rows come in between.
 */
static void
after_counts(Pull *pull)
{
	bool		more = pull->count_dated >= 0 && pull->count_all > pull->count_dated;

	if (pull->rest_sorters != NULL || (more && ++pull->counts_asked >= MAX_COUNTS))
	{
		pull->rest_read = true;
		enter(pull, PHASE_REST);
	}
	else
		enter(pull, more ? PHASE_COUNTS : PHASE_ASK_MISSING);
}

/* All of a phase is read: which is next? */
static void
next_phase(Pull *pull)
{
	switch (pull->phase)
	{
		case PHASE_ACTED:
			enter(pull, PHASE_LISTS);
			break;
		case PHASE_LISTS:
			enter(pull, PHASE_ASK_OPEN);
			break;
		case PHASE_UNRETURNED:
			enter(pull, PHASE_DONE);
			break;
		case PHASE_MEASURE:
			plan_windows(pull);
			break;
		case PHASE_BOUNDS:
			settle_windows(pull);
			break;
		case PHASE_WINDOWS:
			/* a single window has no bounds, so it leaves nothing out */
			enter(pull, pull->nbounds > 0 ? PHASE_COUNTS : PHASE_ASK_MISSING);
			break;
		case PHASE_COUNTS:
			after_counts(pull);
			break;
		case PHASE_REST:
			enter(pull, PHASE_ASK_MISSING);
			break;
		case PHASE_RECHECK:
			enter(pull, PHASE_MARK);
			break;
		default:
			break;
	}
}

/* Has the scan seen all that there is?  Else nothing is missing for it. */
static bool
is_whole(const Pull *pull)
{
	return pull->short_rows == 0 && pull->untold == 0;
}

/* What the carrier is asked for where it is not a page. */
static PullAction
phase_action(const Pull *pull)
{
	switch (pull->phase)
	{
		case PHASE_ASK_OPEN:
			return PULL_ASK_OPEN;
		case PHASE_ASK_MISSING:
			return pull->plan.marks && is_whole(pull) ? PULL_ASK_MISSING : PULL_DONE;
		case PHASE_MARK:
			return is_whole(pull) ? PULL_MARK : PULL_DONE;
		case PHASE_DONE:
			return PULL_DONE;
		default:
			return PULL_FETCH;
	}
}

PullAction
pull_next(Pull *pull, PullFetch *fetch)
{
	MemoryContext old = MemoryContextSwitchTo(pull->cxt);
	PullAction	action = PULL_WAIT;

	while (pull->under_way < Max(pull->plan.max_concurrency, 1))
	{
		PullLane   *lane = idle_lane(pull);

		if (lane == NULL)
			lane = next_lane(pull);
		if (lane != NULL)
		{
			MemoryContextSwitchTo(old);
			describe(pull, lane, fetch);
			lane->fetching = true;
			pull->under_way++;
			action = PULL_FETCH;
			break;
		}
		if (pull->under_way > 0)
			break;
		if ((action = phase_action(pull)) != PULL_FETCH)
			break;
		action = PULL_WAIT;
		next_phase(pull);
	}
	MemoryContextSwitchTo(old);
	return action;
}

void
pull_unfetch(Pull *pull, PullLane *lane)
{
	lane->fetching = false;
	pull->under_way--;
}

/* -------------------------------------------------------------- pages by id */

static char *
copy_id(const PullItem *item)
{
	return pnstrdup(item->id, item->id_len);
}

static bool
is_id(const PullItem *item, const char *id)
{
	return item->id != NULL && strlen(id) == item->id_len &&
		memcmp(item->id, id, item->id_len) == 0;
}

static const PullItem *
last_with_id(const PullPage *page)
{
	for (int i = page->nitems - 1; i >= 0; i--)
	{
		if (page->items[i].id != NULL)
			return &page->items[i];
	}
	return NULL;
}

/* A page that ends a list: an empty one, or a short one that its own count agrees with. */
static bool
is_last(const Pull *pull, const PullPage *page, int64 behind, int64 total)
{
	return page->nitems == 0 ||
		(page->nitems < pull->plan.page_rows && behind == total);
}

/* The next page begins behind this one's last id. */
static const char *
go_on_by_id(PullLane *lane, const PullPage *page)
{
	const PullItem *last = last_with_id(page);

	/* the tenant's order may not be ours, so only standing still is wrong */
	if (lane->after != NULL && is_id(last, lane->after))
		return PULL_STANDS_STILL;
	if (lane->after != NULL)
		pfree(lane->after);
	lane->after = copy_id(last);
	return NULL;
}

/* How many rows fewer came than there were said to be. */
static int64
shortness(const PullLane *lane)
{
	if (lane->total < 0)
		return 0;
	return Max(lane->total - (lane->ids ? idset_size(lane->ids) : 0) - lane->nameless - lane->trailing, 0);
}

/* Nobody can say which they are, but that they are there. */
static void
count_nameless(PullLane *lane, const PullPage *page)
{
	if (page->nitems > 0)
		lane->trailing = 0;
	for (int i = 0; i < page->nitems; i++)
	{
		if (page->items[i].id == NULL)
			lane->trailing++;
		else
		{
			lane->nameless += lane->trailing;
			lane->trailing = 0;
		}
	}
	/* by offset nothing comes twice */
	if (lane->again == AGAIN_PAGES)
	{
		lane->nameless += lane->trailing;
		lane->trailing = 0;
	}
}

/* Another order than ours, in which some may be shown twice, and others never. */
static void
look_at_order(PullLane *lane, const PullPage *page)
{
	const char *before = lane->after;
	size_t		len = before ? strlen(before) : 0;

	for (int i = 0; i < page->nitems; i++)
	{
		const PullItem *item = &page->items[i];
		int			order;

		if (item->id == NULL)
			continue;
		order = before ? memcmp(before, item->id, Min(len, item->id_len)) : -1;
		if (order > 0 || (order == 0 && len >= item->id_len))
			lane->disordered = true;
		before = item->id;
		len = item->id_len;
	}
}

/*
 * Can it be whole?  Rows without an id count as often as they are shown, which says
 * nothing where they may be shown twice.
 */
static bool
may_be_short(const PullLane *lane)
{
	return shortness(lane) > 0 ||
		(lane->again != AGAIN_PAGES && lane->disordered && lane->nameless + lane->trailing > 0);
}

/* Of the rest, where it leads the order: what has no date, and is all that counts. */
static int
add_undated(Pull *pull, PullLane *lane, const PullPage *page)
{
	PullPage	undated = *page;

	undated.nitems = 0;
	while (undated.nitems < page->nitems && page->items[undated.nitems].created == DT_NOBEGIN)
		undated.nitems++;
	lane->total = pull->count_all >= 0 && pull->count_dated >= 0 ?
		Max(pull->count_all - pull->count_dated, 0) : -1;
	count_nameless(lane, &undated);
	return add_ids(pull, &lane->ids, &undated);
}

/* Of a window when that is stored, so that the cursor says of it both or neither. */
static void
add_shortness(Pull *pull, const PullLane *lane)
{
	pull->short_rows += lane->short_rows;
	pull->untold += lane->untold;
}

/*
 * A list has come to its end, by whichever way it was read.  "untold": how many rows
 * it has was not told as it should have been.
 */
static void
end_list(Pull *pull, PullLane *lane, bool untold)
{
	int64		rows = shortness(lane);
	bool		doubtful = may_be_short(lane);

	/* a cycle's other steps find what one does not, and the next begins soon */
	if (pull->plan.kind == PULL_CYCLE)
	{
		close_lane(lane);
		return;
	}
	if (lane->again == AGAIN_NOT && (doubtful || untold))
	{
		lane->again = AGAIN_COUNT;
		/* the rest has been counted just now */
		if (!leads_with_undated(pull, lane))
			return;
	}
	if (lane->again == AGAIN_COUNT && doubtful)
	{
		lane->again = AGAIN_PAGES;
		lane->offset = 0;
		lane->nameless = lane->trailing = 0;
		begin_pass(lane);
		return;
	}
	lane->short_rows = rows;
	lane->untold = untold;
	if (lane->step == PULL_STEP_RECHECK)
		add_shortness(pull, lane);
	close_lane(lane);
}

/* Counted again: rows may have gone since the first time. */
static const char *
count_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	if (page->refused)
		return "an offset is refused that was not asked for";
	(void) add_ids(pull, &lane->ids, page);
	if (page->total >= 0 && (lane->total < 0 || page->total < lane->total))
		lane->total = page->total;
	end_list(pull, lane, lane->total < 0);
	return NULL;
}

/* A row that has a date ends those that have none. */
static bool
ends_undated(const Pull *pull, const PullLane *lane, const PullPage *page)
{
	return leads_with_undated(pull, lane) && page->nitems > 0 &&
		page->items[page->nitems - 1].created != DT_NOBEGIN;
}

static void
offset_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	bool		fresh = add_ids(pull, &lane->pass, page) > 0;

	/* whether rows without an id are new nobody can say */
	if (!fresh && (page->nitems == 0 || last_with_id(page) != NULL || ++lane->stale > MAX_STALE))
		end_list(pull, lane, false);
	else if (shortness(lane) == 0 ||
			 is_last(pull, page, lane->offset + page->nitems, page->total) ||
			 ends_undated(pull, lane, page))
		end_list(pull, lane, false);
	else
		lane->offset += page->nitems;
}

static const char *
id_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	int64		total = lane->after == NULL ? page->total : -1;
	bool		leads = leads_with_undated(pull, lane);
	int			fresh;

	if (lane->again == AGAIN_COUNT)
		return count_page(pull, lane, page);
	if (!leads)
		count_nameless(lane, page);
	if (lane->again == AGAIN_NOT)
		look_at_order(lane, page);
	fresh = leads ? add_undated(pull, lane, page) : add_ids(pull, &lane->ids, page);
	if (lane->again == AGAIN_PAGES)
	{
		offset_page(pull, lane, page);
		return NULL;
	}
	if (lane->after == NULL && !leads)
		lane->total = page->total;
	if (is_last(pull, page, page->nitems, total) || ends_undated(pull, lane, page))
		end_list(pull, lane, lane->total < 0 && (page->refused || lane->absurd));
	else if (last_with_id(page) != NULL &&
			 (fresh > 0 || lane->after == NULL || is_id(last_with_id(page), lane->after)))
		return go_on_by_id(lane, page);
	else
		end_list(pull, lane, false);	/* nothing to go on from */
	return NULL;
}

/* ------------------------------------------------------------- watermarks */

/*
 * A watermark is the latest of the tenant's times that was seen, but not later
 * than the tenant's clock: a row that is dated in the future would hide all
 * that comes before it.
 */
static void
raise_watermark(TimestampTz *watermark, TimestampTz t, TimestampTz date)
{
	if (date != DT_NOBEGIN && t > date)
		t = date;
	if (t != DT_NOBEGIN && t > *watermark)
		*watermark = t;
}

/* ---------------------------------------------------------- step 2: new rows */

/* A page of the rows whose created is the bound, to the millisecond. */
static const char *
tie_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	if (add_ids(pull, &lane->pass, page) > 0)
		return go_on_by_id(lane, page);
	lane->ties = false;
	lane->after = NULL;
	lane->bound += FILTER_UNIT_US;
	return NULL;
}

/*
 * A page that brings nothing, in a list that goes by what its pages bring: an empty
 * one that is not the end by its own count, which is asked for once more; or rows
 * that were all there before.  True where there have been too many.
 */
static bool
leads_nowhere(PullLane *lane, const PullPage *page, int fresh, int64 behind)
{
	if (fresh > 0)
	{
		lane->stale = 0;
		lane->asked_again = false;
	}
	else if (page->nitems > 0)
		return ++lane->stale > MAX_STALE;
	else if (page->total > behind)
		return lane->asked_again;
	return false;
}

/* Is it to be asked for again? */
static bool
ask_again(PullLane *lane, const PullPage *page, int64 behind)
{
	if (page->nitems > 0 || page->total <= behind || lane->asked_again)
		return false;
	lane->asked_again = true;
	return true;
}

/* Does the page begin and end as the one before it did, or have no id at all? */
static bool
stands_still(PullLane *lane, const PullPage *page)
{
	const PullItem *last = last_with_id(page);
	const PullItem *first = page->items;
	bool		still;

	if (last == NULL)
		return true;
	while (first->id == NULL)
		first++;
	still = lane->nanchors == 2 && is_id(first, lane->anchors[0]) && is_id(last, lane->anchors[1]);
	while (lane->nanchors > 0)
		pfree(lane->anchors[--lane->nanchors]);
	lane->anchors[lane->nanchors++] = copy_id(first);
	lane->anchors[lane->nanchors++] = copy_id(last);
	return still;
}

/*
 * Where no filter takes a date: from the newest by offset, down to the bound.  New
 * rows come in at the head, so that a page may repeat rows and passes none by;
 * for those that go, a page begins within the one before it.
 */
static const char *
newest_page(Pull *pull, PullLane *lane, const PullPage *page, int fresh)
{
	int64		behind = lane->offset + page->nitems;
	TimestampTz oldest = DT_NOBEGIN;	/* null says nothing */

	for (int i = page->nitems - 1; i >= 0 && oldest == DT_NOBEGIN; i--)
		oldest = page->items[i].created;
	if (leads_nowhere(lane, page, fresh, lane->offset))
	{
		/* the newest came first: what is behind them is left to the next cycle */
		close_lane(lane);
		pull->marks.created_watermark = DT_NOBEGIN;
		return NULL;
	}
	if (ask_again(lane, page, lane->offset))
		return NULL;
	if (is_last(pull, page, behind, page->total) ||
		(oldest != DT_NOBEGIN && oldest < lane->bound) ||
		(page->total >= 0 && lane->offset > page->total))
	{
		close_lane(lane);
		return NULL;
	}
	lane->offset = page->nitems > pull->anchor_rows ? behind - pull->anchor_rows : behind;
	return stands_still(lane, page) ? PULL_STANDS_STILL : NULL;
}

/*
 * By created from the bound.  The next page begins at the last row's created, so
 * there are no offsets that could drift.  Where a page does not get beyond the
 * bound, because many rows have one and the same created, these are read by id,
 * and then what is behind them.
 */
static const char *
new_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	TimestampTz last = DT_NOBEGIN;
	int			fresh = add_ids(pull, &lane->ids, page);

	for (int i = 0; i < page->nitems; i++)
	{
		TimestampTz t = page->items[i].created;

		raise_watermark(&pull->marks.created_watermark, t, page->date);
		if (t > last)
			last = t;
	}
	if (!filter_takes_dates(pull->plan.dates))
		return newest_page(pull, lane, page, fresh);
	if (lane->ties)
		return tie_page(pull, lane, page);
	if (leads_nowhere(lane, page, fresh, 0))
		close_lane(lane);		/* the next cycle goes on from what came */
	else if (ask_again(lane, page, 0))
		return NULL;
	else if (is_last(pull, page, page->nitems, page->total))
		close_lane(lane);
	else if (filter_floor(last) > lane->bound)
		lane->bound = filter_floor(last);
	else if (last == DT_NOBEGIN)
		return "no item of the page has a date in created, by which it was asked for";
	else
	{
		lane->ties = true;
		begin_pass(lane);
	}
	return NULL;
}

/* ------------------------------------------------------ step 3: changed rows */

/* What it would have shown is asked for by the next cycle, from where this began. */
static void
give_up_changed(Pull *pull, PullLane *lane)
{
	close_lane(lane);
	pull->marks.modified_watermark = DT_NOBEGIN;
	pull->marks.null_modified = 0;
}

/*
 * Rows without "modified" may lead the order, by thousands, and must not be
 * read each time: a cycle begins where they ended in the last one.  This
 * narrows down where that is now, between low, up to where they are known to
 * reach, and high.  That needs them to be together: where one turns up behind
 * a row that has a date, the tenant sorts them otherwise, and nothing is left
 * out.
 */
static bool
find_first_dated(Pull *pull, PullLane *lane, const PullPage *page)
{
	int			nulls = 0;
	int			rows = pull->plan.page_rows;

	while (nulls < page->nitems && page->items[nulls].modified == DT_NOBEGIN)
		nulls++;
	if (nulls < page->nitems && (nulls > 0 || lane->offset == lane->low))
	{
		lane->low = lane->offset + nulls;
		lane->first = lane->offset;
		lane->walking = true;
		return true;
	}
	if (page->nitems > 0 && nulls == page->nitems)
		lane->low = lane->offset + nulls;
	else if (lane->offset > lane->low)
		lane->high = lane->offset;
	else
	{
		close_lane(lane);		/* nothing is here: no row has a date */
		return false;
	}
	if (lane->high < 0 && lane->low + lane->leap > MAX_TOTAL)
	{
		give_up_changed(pull, lane);
		return false;
	}
	if (lane->high < 0)
	{
		lane->offset = lane->low + lane->leap - rows;
		lane->leap *= 2;
	}
	else if (lane->high - lane->low <= rows)
		lane->offset = lane->low;
	else
		lane->offset = lane->low + (lane->high - lane->low) / 2;
	return false;
}

static bool
has_scattered_nulls(const PullLane *lane, const PullPage *page)
{
	bool		dated = lane->last_modified != DT_NOBEGIN;

	for (int i = 0; i < page->nitems; i++)
	{
		if (page->items[i].modified != DT_NOBEGIN)
			dated = true;
		/* at the end of the order they are together as well */
		else if (dated && i + 1 < page->nitems && page->items[i + 1].modified != DT_NOBEGIN)
			return true;
	}
	return false;
}

/*
 * Does the page join the one before it?  Its rows are newer than the last one
 * there, or one of that one's last rows is among them.
 */
static bool
joins(const PullLane *lane, const PullPage *page)
{
	if (lane->nanchors == 0 || page->nitems == 0)
		return true;
	if (page->items[0].modified != DT_NOBEGIN && lane->last_modified != DT_NOBEGIN &&
		page->items[0].modified > lane->last_modified)
		return true;
	for (int i = 0; i < page->nitems; i++)
	{
		for (int k = 0; k < lane->nanchors; k++)
		{
			if (is_id(&page->items[i], lane->anchors[k]))
				return true;
		}
	}
	return false;
}

static void
note_anchors(const Pull *pull, PullLane *lane, const PullPage *page)
{
	while (lane->nanchors > 0)
		pfree(lane->anchors[--lane->nanchors]);
	for (int i = Max(page->nitems - pull->anchor_rows, 0); i < page->nitems; i++)
	{
		if (page->items[i].id != NULL)
			lane->anchors[lane->nanchors++] = copy_id(&page->items[i]);
		if (page->items[i].modified != DT_NOBEGIN)
			lane->last_modified = page->items[i].modified;
	}
}

/* Begin again at the head, and leave nothing out. */
static void
restart_changed(PullLane *lane)
{
	lane->scattered = true;
	lane->walking = true;
	lane->offset = lane->low = lane->first = 0;
	lane->nanchors = 0;
	/* what was walked is walked again */
	idset_free(lane->ids);
	lane->ids = NULL;
	lane->last_modified = DT_NOBEGIN;
}

/* The last page of step 3: rows older than what the last cycle has seen. */
static bool
is_old_enough(const Pull *pull, const PullPage *page)
{
	TimestampTz bound = less_overlap(pull->plan.modified_watermark);

	for (int i = page->nitems - 1; i >= 0; i--)
	{
		if (page->items[i].modified != DT_NOBEGIN)
			return page->items[i].modified < bound;
	}
	return false;				/* null says nothing */
}

static const char *
changed_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	int64		behind = lane->offset + page->nitems;
	int			fresh = add_ids(pull, &lane->ids, page);

	for (int i = 0; i < page->nitems; i++)
		raise_watermark(&pull->marks.modified_watermark, page->items[i].modified, page->date);
	if (leads_nowhere(lane, page, fresh, lane->offset))
	{
		give_up_changed(pull, lane);
		return NULL;
	}
	if (ask_again(lane, page, lane->offset))
		return NULL;
	if (!lane->walking && !find_first_dated(pull, lane, page))
	{
		/* none is dated: that says nothing of where such a row will be */
		if (lane->done)
			pull->marks.null_modified = 0;
		return NULL;
	}
	if (!lane->scattered && has_scattered_nulls(lane, page))
	{
		pull->marks.null_modified = 0;
		if (lane->first > 0)
		{
			restart_changed(lane);
			return NULL;
		}
		lane->scattered = true;
	}
	if (!joins(lane, page))
	{
		if (lane->steps_back++ < MAX_STEPS_BACK)
		{
			lane->offset = Max(lane->offset - (pull->plan.page_rows - pull->anchor_rows), 0);
			return NULL;
		}
		lane->has_gap = true;
	}
	if (is_old_enough(pull, page) || is_last(pull, page, behind, page->total))
	{
		close_lane(lane);
		/* what fell into a gap is left to the next cycle */
		if (lane->has_gap)
			pull->marks.modified_watermark = DT_NOBEGIN;
		pull->marks.null_modified = lane->scattered ? 0 : lane->low;
		return NULL;
	}
	note_anchors(pull, lane, page);
	lane->offset = page->nitems > pull->anchor_rows ? behind - pull->anchor_rows : behind;
	return NULL;
}

/* ------------------------------------------------------------ measurements */

/* Rows without a date lead this order; if the other one too, then neither. */
static void
note_undated_end(Pull *pull, const char *sorters)
{
	if (pull->rest_sorters != NULL && pull->rest_sorters != sorters)
		pull->rest_scattered = true;
	pull->rest_sorters = sorters;
}

static const char *
measure_page(Pull *pull, PullLane *lane, const PullPage *page)
{
	TimestampTz created = page->nitems > 0 ? page->items[0].created : DT_NOBEGIN;

	close_lane(lane);
	switch (pull->phase)
	{
		case PHASE_MEASURE:
			pull->dated = pull->total = page->total;

			/*
			 * What changes from now on is later than the newest row of now, as
			 * the tenant dates it; its own clock is in no answer for sure.
			 */
			raise_watermark(&pull->marks.created_watermark, created, page->date);
			pull->marks.modified_watermark = pull->marks.created_watermark;
			break;
		case PHASE_BOUNDS:
			pull->bounds[lane->number] = created;
			/* nothing is there, or the same whatever the offset */
			if (add_ids(pull, &pull->bound_ids, page) == 0)
				pull->beyond = true;
			break;
		default:
			if (lane->number == NUM_COUNTS - 1)
				pull->count_dated = page->total;
			else
			{
				pull->count_all = page->total;
				if (page->nitems > 0 && created == DT_NOBEGIN)
					note_undated_end(pull, lane->number == 0 ? SORT_BY_CREATED : SORT_NEWEST_FIRST);
			}
			break;
	}
	return NULL;
}

/*
 * A tenant that shows far fewer rows at the end of a scan than at its start
 * has not lost them: the token has lost rights.  One that shows none takes dates
 * no more as it did, and windows have missed what they should have returned.
 */
static const char *
check_count(Pull *pull, const PullPage *page)
{
	if (page->nitems == 0)
		pull->count_dated = 0;
	else if (!pull->plan.marks || pull->dated <= 0 || pull->count_dated < 0 ||
		pull->count_dated >= pull->dated * (1 - pull->plan.missing_limit))
		return NULL;
	snprintf(pull->problem, PULL_PROBLEM_LEN,
			 "the tenant showed " INT64_FORMAT " dated rows when the scan began and " INT64_FORMAT " at its end",
			 pull->dated, pull->count_dated);
	return pull->problem;
}

/* --------------------------------------------------------------- every page */

const char *
pull_page(Pull *pull, const PullPage *given, bool *ends)
{
	MemoryContext old = MemoryContextSwitchTo(pull->cxt);
	PullPage	copy = *given;
	const PullPage *page = &copy;
	PullLane   *lane = page->lane;
	const char *problem;

	/* what cannot be so says nothing */
	if (copy.total > MAX_TOTAL)
	{
		copy.total = -1;
		lane->absurd = true;
	}
	/* of these lists an empty page may be the end, or a lie: by what was told before */
	if (lane->step == PULL_STEP_NEW || lane->step == PULL_STEP_CHANGED)
	{
		if (copy.total >= 0)
			lane->total = copy.total;
		else if (copy.nitems == 0)
			copy.total = lane->total;
	}
	lane->fetching = false;
	pull->under_way--;
	if (lane->step != PULL_STEP_MEASURE && lane->again == AGAIN_NOT)
		pull->seen += page->nitems;
	if (lane->step == PULL_STEP_MEASURE)
	{
		problem = measure_page(pull, lane, page);
		if (problem == NULL && pull->phase == PHASE_COUNTS && lane->number == NUM_COUNTS - 1)
			problem = check_count(pull, page);
	}
	else if (lane->step == PULL_STEP_NEW)
		problem = new_page(pull, lane, page);
	else if (lane->step == PULL_STEP_CHANGED)
		problem = changed_page(pull, lane, page);
	else
		problem = id_page(pull, lane, page);
	/* a single window is measured by itself */
	if (lane->step == PULL_STEP_WINDOW && pull->nbounds == 0 && pull->total < lane->total)
		pull->total = lane->total;
	*ends = lane->done &&
		(lane->step == PULL_STEP_WINDOW || lane->step == PULL_STEP_REST);
	MemoryContextSwitchTo(old);
	return problem;
}

void
pull_window_stored(Pull *pull, PullLane *lane)
{
	add_shortness(pull, lane);
	if (lane->step == PULL_STEP_WINDOW)
		pull->stored[lane->number] = true;
}

PullRange
pull_range(const Pull *pull, const PullLane *lane)
{
	PullRange	range = {false, false, DT_NOBEGIN, DT_NOBEGIN};

	if (lane->step == PULL_STEP_REST)
		range.undated = true;
	else if (pull->nbounds == 0)
		range.all = true;
	else
	{
		if (lane->number > 0)
			range.from = pull->bounds[lane->number - 1];
		if (lane->number < pull->nbounds)
			range.to = pull->bounds[lane->number];
	}
	return range;
}

bool
pull_left_out(const Pull *pull, PullRange *range)
{
	memset(range, 0, sizeof(PullRange));
	range->undated = true;
	return pull->nbounds > 0 && !pull->rest_read;
}

/* ------------------------------------------------------------------ answers */

static void
take_ids(Pull *pull, const char *const *ids, int nids, Phase phase)
{
	MemoryContext old = MemoryContextSwitchTo(pull->cxt);

	pull->ids = copy_ids(ids, nids);
	pull->nids = nids;
	enter(pull, phase);
	MemoryContextSwitchTo(old);
}

void
pull_give_open(Pull *pull, const char *const *ids, int nids)
{
	take_ids(pull, ids, nids, PHASE_UNRETURNED);
}

const char *
pull_give_missing(Pull *pull, const PullMissing *missing)
{
	bool		any_open = missing->open_stored > 0;
	int64		stored = any_open ? missing->open_stored : missing->stored;
	int64		gone = any_open ? missing->open_missing : missing->nids;

	/* closed rows go in numbers where a tenant clears up; open ones do not */
	if (gone > stored * pull->plan.missing_limit)
	{
		snprintf(pull->problem, PULL_PROBLEM_LEN,
				 INT64_FORMAT " of " INT64_FORMAT " %srows would be marked missing, more than accessreq.missing_limit allows",
				 gone, stored, any_open ? "open " : "");
		return pull->problem;
	}
	take_ids(pull, missing->ids, missing->nids, PHASE_RECHECK);
	return NULL;
}

void
pull_marked(Pull *pull)
{
	enter(pull, PHASE_DONE);
}

/* ------------------------------------------------------------------- cursor */

static void
append_time(StringInfo buf, TimestampTz t)
{
	appendStringInfoChar(buf, '"');
	if (t != DT_NOBEGIN)
		filter_append_time(buf, t, 6);
	appendStringInfoChar(buf, '"');
}

void
pull_cursor(const Pull *pull, StringInfo buf)
{
	appendStringInfo(buf, "{\"version\":%d,\"started\":", CURSOR_VERSION);
	append_time(buf, pull->started);
	appendStringInfoString(buf, ",\"newest\":");
	append_time(buf, pull->marks.created_watermark);
	appendStringInfo(buf, ",\"dated\":" INT64_FORMAT ",\"total\":" INT64_FORMAT ",\"seen\":" INT64_FORMAT ",\"short\":" INT64_FORMAT ",\"untold\":" INT64_FORMAT ",\"bounds\":[",
					 pull->dated, pull->total, pull->seen, pull->short_rows, pull->untold);
	for (int i = 0; i < pull->nbounds; i++)
	{
		if (i > 0)
			appendStringInfoChar(buf, ',');
		append_time(buf, pull->bounds[i]);
	}
	appendStringInfoString(buf, "],\"stored\":\"");
	for (int i = 0; i < pull->window_total; i++)
		appendStringInfoChar(buf, pull->stored[i] ? '1' : '0');
	appendStringInfoString(buf, "\"}");
}

TimestampTz
pull_started(const Pull *pull)
{
	return pull->started;
}

bool
pull_was_resumed(const Pull *pull)
{
	return pull->resumed;
}

int64
pull_short(const Pull *pull)
{
	return pull->short_rows > 0 ? pull->short_rows : is_whole(pull) ? 0 : -1;
}

PullProgress
pull_progress(const Pull *pull)
{
	PullProgress p = {pull->seen, pull->total};

	return p;
}

PullMarks
pull_marks(const Pull *pull)
{
	return pull->marks;
}
