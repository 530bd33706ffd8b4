/*-------------------------------------------------------------------------
 *
 * pull_walk.c
 *	  pull.c against a scripted tenant, through random orders of events.
 *
 * A walk has a tenant of a few dozen rows, with pages of a few rows, so that
 * every border is met often, and what is stored of it here.  Between pages rows
 * are added, changed, changed without a date, removed, opened and closed; pulls
 * are broken off at any page and taken up.  What must hold whatever happens:
 *
 * - A row that stood still through a scan that ended well is stored as it is.
 * - A row that is there is never marked missing; one that was gone before the
 *	 scan began, and is stored, is.
 * - After a quiet cycle all is stored as it is, but for changes that moved no
 *	 date of rows that are closed.
 * - Every pull ends, after a number of pages that follows from the rows.
 *
 * Some tenants lie, each in its own ways: an empty page in the middle of a list, or
 * once in a while; pages that go by no offset, or by no filter; ids that are ordered
 * otherwise than they are compared; rows without an id; counts that no tenant has.
 * Of these all that is asked for is that a pull ends, that what was shown is stored,
 * that a scan is short of what it did not get, and that no row that is there is
 * marked missing.
 *
 * The tenant takes dates in filters quoted, bare, or not at all, and may change its
 * mind once, at any moment; what it does not take matches nothing.  What is known
 * of that is found out and forgotten as loop.c does.
 *
 * The same seed gives the same walk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "filter.h"
#include "fmgr.h"
#include "funcapi.h"
#include "item.h"
#include "miscadmin.h"
#include "pull.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(unit_pull);

#define MAX_ROWS 400
#define MAX_FETCHES 5000
#define MAX_UNDER_WAY 8
#define ID_LEN 16

/* Rows that scripts of a walk leave for the overlap to find lie within this. */
#define TICK (20 * USECS_PER_SEC)

/* Pages that bring nothing, as many as pull.c bears, and some. */
#define MAX_STALE_PAGES 10

/* Longer than the overlap. */
#define PAUSE (600 * USECS_PER_SEC)

typedef struct Row
{
	char		id[ID_LEN];
	TimestampTz created;		/* DT_NOBEGIN: none */
	TimestampTz modified;
	bool		open;
	bool		gone;
	bool		silent;			/* changed last without moving a date */
	bool		nameless;		/* has no id that can be read */
	int			version;
	TimestampTz touched;		/* by the script, its clock */
	/* here */
	int			stored;			/* version, -1: not */
	bool		stored_open;
	bool		missing;
	bool		candidate;
} Row;

typedef enum NullOrder
{
	NULLS_LEAD,
	NULLS_TRAIL,
	NULLS_AS_CREATED,			/* anywhere */
	NUM_NULL_ORDERS
} NullOrder;

typedef struct Asked
{
	PullFetch	fetch;
	bool		expected[MAX_ROWS]; /* of a window */
} Asked;

typedef struct Walk
{
	pg_prng_state rng;
	Row			rows[MAX_ROWS];
	int			nrows;
	TimestampTz now;
	NullOrder	nulls;
	int			page_rows;
	int			served;			/* rows of a page at most, whatever is asked for */
	int			window_rows;
	int			concurrency;
	int			count_error;	/* added to every count */
	bool		no_counts;
	bool		quiet;			/* nothing happens between pages */
	double		undated;
	bool		undated_last;	/* in the ascending order */
	bool		lies;
	double		empty;			/* share of pages that are, and should not be */
	bool		no_offset;		/* pages go by none */
	bool		no_filter;
	bool		other_order;	/* ids in an order that is not the filter's */
	double		no_id;			/* share of rows that have none to be read */
	bool		huge_counts;
	DateForm	dates;			/* that the tenant takes */
	bool		fickle;			/* it will take others */
	DateForm	known;			/* that it takes, as far as is known here */
	bool		dates_failed;
	/* what the job remembers */
	PullMarks	marks;
	/* windows under way */
	PullLane   *lanes[MAX_UNDER_WAY];
	bool		expected[MAX_UNDER_WAY][MAX_ROWS];
	int			nlanes;
	bool		returned[MAX_ROWS];
	/* counters */
	int64		fetches,
				scans,
				cycles,
				restarts,
				marked,
				errors,
				shorts;
	const char *violation;
} Walk;

static int
below(Walk *w, int n)
{
	return (int) (pg_prng_uint64(&w->rng) % (uint64) n);
}

static bool
chance(Walk *w, double p)
{
	return pg_prng_double(&w->rng) < p;
}

static DateForm
any_form(Walk *w)
{
	return DATES_NEITHER + below(w, DATES_BARE - DATES_NEITHER + 1);
}

/* ---------------------------------------------------------------- what happens */

static void
add_row(Walk *w, TimestampTz created)
{
	Row		   *row;

	if (w->nrows >= MAX_ROWS)
		return;
	row = &w->rows[w->nrows++];
	memset(row, 0, sizeof(Row));
	snprintf(row->id, ID_LEN, "%08x%03x", (unsigned) pg_prng_uint32(&w->rng), w->nrows);
	row->created = chance(w, w->undated) ? DT_NOBEGIN : created;
	row->modified = chance(w, 0.3) ? DT_NOBEGIN : created + below(w, 5) * TICK;
	row->open = chance(w, 0.3);
	row->nameless = chance(w, w->no_id);
	row->touched = w->now;
	row->stored = -1;
}

static void
happen(Walk *w)
{
	Row		   *row = &w->rows[below(w, Max(w->nrows, 1))];

	/* times are often equal: several things happen in a tick */
	if (chance(w, 0.3))
		w->now += TICK;
	if (w->nrows == 0 || chance(w, 0.3))
	{
		add_row(w, w->now);
		return;
	}
	if (row->gone)
		return;
	if (w->fickle && chance(w, 0.05))
	{
		w->dates = any_form(w);
		w->fickle = false;
	}
	row->touched = w->now;
	if (chance(w, 0.25))
	{
		row->gone = true;
		return;
	}
	row->version++;
	row->silent = chance(w, 0.3);
	if (!row->silent)
		row->modified = w->now;
	if (row->open && chance(w, 0.4))
		row->open = false;
}

/* ------------------------------------------------------------------ the tenant */

/* A date; of a form that the tenant does not take none, which no row fits. */
static TimestampTz
parse_literal(const Walk *w, const char **p)
{
	bool		quoted = **p == '"';
	const char *start = *p + quoted;
	const char *end = quoted ? strchr(start, '"') : start + strcspn(start, " ");

	*p = end + quoted;
	if (w->dates != (quoted ? DATES_QUOTED : DATES_BARE))
		return DT_NOBEGIN;
	return item_parse_time(pnstrdup(start, end - start));
}

/* Does a row fit the filter?  The few forms that pull.c writes. */
static bool
fits(const Walk *w, const Row *row, const char *filter)
{
	const char *p = filter;
	TimestampTz t;

	while (p != NULL && *p)
	{
		if (strncmp(p, "created ge ", 11) == 0)
		{
			p += 11;
			t = parse_literal(w, &p);
			if (t == DT_NOBEGIN || row->created == DT_NOBEGIN || row->created < t)
				return false;
		}
		else if (strncmp(p, "created lt ", 11) == 0)
		{
			p += 11;
			t = parse_literal(w, &p);
			if (t == DT_NOBEGIN || row->created == DT_NOBEGIN || row->created >= t)
				return false;
		}
		else if (strncmp(p, ITEM_ID_KEY " gt \"", strlen(ITEM_ID_KEY) + 5) == 0)
		{
			const char *end;

			p += strlen(ITEM_ID_KEY) + 5;
			end = strchr(p, '"');
			if (strcmp(row->id, pnstrdup(p, end - p)) <= 0)
				return false;
			p = end + 1;
		}
		else if (strncmp(p, ITEM_ID_KEY " in (", strlen(ITEM_ID_KEY) + 5) == 0)
		{
			const char *end = strchr(p, ')');

			if (strstr(pnstrdup(p, end - p), psprintf("\"%s\"", row->id)) == NULL)
				return false;
			p = end + 1;
		}
		else
			elog(ERROR, "unknown filter: %s", p);
		if (strncmp(p, " and ", 5) == 0)
			p += 5;
	}
	return true;
}

static const Walk *sorting;
static const char *sorting_by;

/* The other order is by the last letters, which the filter looks at last. */
static int
compare_ids(const Row *a, const Row *b)
{
	if (sorting->other_order)
		return strcmp(a->id + 5, b->id + 5);
	return strcmp(a->id, b->id);
}

static int
compare_times(TimestampTz a, TimestampTz b)
{
	return (a > b) - (a < b);
}

static TimestampTz
modified_key(const Row *row)
{
	if (row->modified != DT_NOBEGIN)
		return row->modified;
	switch (sorting->nulls)
	{
		case NULLS_LEAD:
			return DT_NOEND;
		case NULLS_TRAIL:
			return DT_NOBEGIN;
		default:
			return row->created;
	}
}

static TimestampTz
created_key(const Row *row)
{
	return row->created == DT_NOBEGIN && sorting->undated_last ? DT_NOEND : row->created;
}

static int
compare_rows(const void *pa, const void *pb)
{
	const Row  *a = *(Row *const *) pa;
	const Row  *b = *(Row *const *) pb;
	int			order = 0;

	if (strncmp(sorting_by, "created", 7) == 0)
		order = compare_times(created_key(a), created_key(b));
	else if (strncmp(sorting_by, "-created", 8) == 0)
		order = compare_times(created_key(b), created_key(a));
	else if (strncmp(sorting_by, "-modified", 9) == 0)
		order = compare_times(modified_key(b), modified_key(a));
	return order != 0 ? order : compare_ids(a, b);
}

static void
answer(Walk *w, const PullFetch *fetch, PullPage *page, Row **on_page)
{
	Row		   *found[MAX_ROWS];
	PullItem   *items = palloc0(sizeof(PullItem) * Max(fetch->limit, 1));
	int			n = 0;

	for (int i = 0; i < w->nrows; i++)
	{
		Row		   *row = &w->rows[i];

		if (!row->gone && (!fetch->executing || row->open) &&
			(w->no_filter || fits(w, row, fetch->filters)))
			found[n++] = row;
	}
	sorting = w;
	sorting_by = fetch->sorters;
	qsort(found, n, sizeof(Row *), compare_rows);
	page->lane = fetch->lane;
	page->items = items;
	page->nitems = 0;
	page->date = w->now;
	page->total = !fetch->count || w->no_counts ? -1 : Max(n + w->count_error, 0);
	if (w->huge_counts && page->total >= 0 && chance(w, 0.2))
		page->total = chance(w, 0.5) ? PG_INT64_MAX : INT64CONST(9) << below(w, 60);
	if (chance(w, w->empty))
		return;
	for (int64 i = w->no_offset ? 0 : fetch->offset; i < n && page->nitems < Min(fetch->limit, w->served); i++)
	{
		PullItem   *item = &items[page->nitems];

		on_page[page->nitems++] = found[i];
		item->id = found[i]->id;
		item->id_len = strlen(found[i]->id);
		if (found[i]->nameless)
			item->id = NULL;
		item->created = fetch->wants_times ? found[i]->created : DT_NOBEGIN;
		item->modified = fetch->wants_times ? found[i]->modified : DT_NOBEGIN;
	}
}

/* ------------------------------------------------------------------------ here */

static void
store(Walk *w, PullStep step, Row **rows, int n)
{
	if (step == PULL_STEP_MEASURE)
		return;
	for (int i = 0; i < n; i++)
	{
		if (rows[i]->nameless)
			continue;
		rows[i]->stored = rows[i]->version;
		rows[i]->stored_open = rows[i]->open;
		rows[i]->missing = false;
		if (step == PULL_STEP_RECHECK)
			rows[i]->candidate = false;
		w->returned[rows[i] - w->rows] = true;
	}
}

static bool
in_range(const Row *row, const PullRange *range)
{
	if (row->stored < 0 || row->missing)
		return false;
	if (range->all)
		return true;
	if (range->undated || row->created == DT_NOBEGIN)
		return range->undated && row->created == DT_NOBEGIN;
	return (range->from == DT_NOBEGIN || row->created >= range->from) &&
		(range->to == DT_NOBEGIN || row->created < range->to);
}

static int
window_of(const Walk *w, const PullLane *lane)
{
	for (int i = 0; i < w->nlanes; i++)
	{
		if (w->lanes[i] == lane)
			return i;
	}
	return -1;
}

static void
open_window(Walk *w, const Pull *pull, PullLane *lane)
{
	PullRange	range = pull_range(pull, lane);
	int			i = w->nlanes++;

	w->lanes[i] = lane;
	memset(w->expected[i], 0, sizeof(w->expected[i]));
	for (int r = 0; r < w->nrows; r++)
		w->expected[i][r] = in_range(&w->rows[r], &range);
}

static void
end_window(Walk *w, Pull *pull, PullLane *lane)
{
	int			i = window_of(w, lane);

	pull_window_stored(pull, lane);
	for (int r = 0; r < w->nrows; r++)
	{
		if (w->expected[i][r])
			w->rows[r].candidate = true;
	}
	w->nlanes--;
	w->lanes[i] = w->lanes[w->nlanes];
	memcpy(w->expected[i], w->expected[w->nlanes], sizeof(w->expected[i]));
}

/* -------------------------------------------------------------------- a pull */

static void
give_open(Walk *w, Pull *pull)
{
	const char *ids[MAX_ROWS];
	int			n = 0;

	for (int i = 0; i < w->nrows; i++)
	{
		if (w->rows[i].stored >= 0 && w->rows[i].stored_open && !w->rows[i].missing &&
			!w->returned[i])
			ids[n++] = w->rows[i].id;
	}
	pull_give_open(pull, ids, n);
}

static const char *
give_missing(Walk *w, Pull *pull)
{
	const char *ids[MAX_ROWS];
	PullMissing missing = {0};
	PullRange	range;

	if (pull_left_out(pull, &range))
	{
		for (int i = 0; i < w->nrows; i++)
			w->rows[i].candidate = w->rows[i].candidate || in_range(&w->rows[i], &range);
	}
	for (int i = 0; i < w->nrows; i++)
	{
		const Row  *row = &w->rows[i];
		bool		candidate = row->candidate && !row->missing;

		missing.stored += row->stored >= 0 && !row->missing;
		missing.open_stored += row->stored >= 0 && row->stored_open && !row->missing;
		missing.open_missing += candidate && row->stored_open;
		if (candidate)
			ids[missing.nids++] = row->id;
	}
	missing.ids = ids;
	return pull_give_missing(pull, &missing);
}

static void
mark(Walk *w)
{
	for (int i = 0; i < w->nrows; i++)
	{
		Row		   *row = &w->rows[i];

		if (row->candidate && !row->missing)
		{
			row->missing = true;
			w->marked++;
			if (!row->gone)
				w->violation = psprintf("row %s is there and was marked missing", row->id);
		}
		row->candidate = false;
	}
}

typedef enum Outcome
{
	ENDED,
	BROKEN_OFF,
	FAILED
} Outcome;

/*
 * Each page of a walk through a list brings a row, but for some at its end, and each
 * list is walked through twice at most; a window costs a page for its bound, one or
 * two for its end, and one for its count.
 */
static int
most_pages(const Walk *w)
{
	int			windows = w->nrows / w->window_rows + 2 * w->concurrency + 2;

	return 4 * MAX_STALE_PAGES + 6 * w->nrows + 8 * windows;
}

/* Carry a pull; pages come back in any order. */
static Outcome
carry(Walk *w, Pull *pull)
{
	PullFetch	asked[MAX_UNDER_WAY];
	int			n = 0;
	int			asked_for = 0;

	w->nlanes = 0;
	memset(w->returned, 0, sizeof(w->returned));
	for (int fetches = 0;; fetches++)
	{
		PullPage	page = {0};
		Row		   *on_page[MAX_ROWS];
		PullFetch	fetch;
		bool		ends;
		int			which;

		if (fetches > MAX_FETCHES || asked_for > most_pages(w))
		{
			w->violation = psprintf("a pull does not end, after %d pages of %d rows", asked_for, w->nrows);
			return FAILED;
		}
		switch (pull_next(pull, &fetch))
		{
			case PULL_FETCH:
				if (fetch.begins)
					open_window(w, pull, fetch.lane);
				if (fetch.offset < 0 || fetch.limit < 1)
					w->violation = psprintf("offset " INT64_FORMAT " is asked for, limit %d", fetch.offset, fetch.limit);
				asked_for++;
				asked[n++] = fetch;
				continue;
			case PULL_ASK_OPEN:
				give_open(w, pull);
				continue;
			case PULL_ASK_MISSING:
				if (give_missing(w, pull) != NULL)
					return FAILED;
				continue;
			case PULL_MARK:
				mark(w);
				pull_marked(pull);
				continue;
			case PULL_DONE:
				return ENDED;
			case PULL_WAIT:
				break;
		}
		if (n == 0)
		{
			w->violation = "a pull waits for nothing";
			return FAILED;
		}
		if (!w->quiet && chance(w, 0.02))
			return BROKEN_OFF;
		while (!w->quiet && chance(w, 0.4))
			happen(w);
		which = below(w, n);
		fetch = asked[which];
		asked[which] = asked[--n];
		w->fetches++;
		answer(w, &fetch, &page, on_page);
		w->dates_failed |= fetch.dated && page.nitems == 0;
		if (pull_page(pull, &page, &ends) != NULL)
			return FAILED;
		for (int i = 0; i < page.nitems; i++)
		{
			int			window = window_of(w, fetch.lane);

			if (window >= 0)
				w->expected[window][on_page[i] - w->rows] = false;
		}
		store(w, fetch.step, on_page, page.nitems);
		if (ends)
			end_window(w, pull, fetch.lane);
	}
}

/* What dates.c finds out. */
static DateForm
probe(const Walk *w)
{
	DateForm	found = DATES_UNKNOWN;

	for (int i = 0; i < w->nrows; i++)
	{
		if (w->rows[i].gone)
			continue;
		if (w->rows[i].created != DT_NOBEGIN)
			return w->dates;
		found = DATES_NEITHER;
	}
	return found;
}

/* Before a pull: as needs_probe() in loop.c. */
static void
find_form(Walk *w, PullKind kind, bool goes_on)
{
	if (w->dates_failed)
		w->known = DATES_UNKNOWN;
	w->dates_failed = false;
	if (kind == PULL_CYCLE ? w->known == DATES_UNKNOWN && w->marks.created_watermark != DT_NOBEGIN :
		w->known == DATES_UNKNOWN || (w->known == DATES_NEITHER && !goes_on))
		w->known = probe(w);
}

static PullPlan
plan(Walk *w, PullKind kind)
{
	PullPlan	plan = {0};

	plan.kind = kind;
	plan.max_concurrency = w->concurrency;
	plan.page_rows = w->page_rows;
	plan.window_rows = w->window_rows;
	plan.now = w->now;
	plan.dates = w->known;
	plan.created_watermark = w->marks.created_watermark;
	plan.modified_watermark = w->marks.modified_watermark;
	plan.null_modified = w->marks.null_modified;
	plan.marks = true;
	plan.missing_limit = 1;
	return plan;
}

static void
take_marks(Walk *w, const Pull *pull)
{
	PullMarks	marks = pull_marks(pull);

	w->marks.created_watermark = Max(w->marks.created_watermark, marks.created_watermark);
	w->marks.modified_watermark = Max(w->marks.modified_watermark, marks.modified_watermark);
	if (marks.null_modified >= 0)
		w->marks.null_modified = marks.null_modified;
}

/* ---------------------------------------------------------------- invariants */

static void
check_scan(Walk *w, TimestampTz since, const bool *was_gone, int64 is_short)
{
	int64		lacking = 0;

	for (int i = 0; i < w->nrows; i++)
		lacking += !w->rows[i].gone && !w->rows[i].nameless && w->rows[i].stored < 0 && w->rows[i].touched < since;
	/*
	 * A tenant that counts what it does not show is found out, where rows stand
	 * still, and those without an id are not shown twice.
	 */
	if (w->lies && w->quiet && !w->no_filter && !w->huge_counts &&
		!((w->other_order || w->no_offset) && w->no_id > 0) && lacking > 0 && is_short == 0)
		w->violation = psprintf(INT64_FORMAT " rows stood still through a scan, are not stored, and nothing is said of it", lacking);
	/* nor is a count that is too high believed to be of rows that are gone */
	if (w->lies || is_short != 0)
		return;
	for (int i = 0; i < w->nrows && w->violation == NULL; i++)
	{
		const Row  *row = &w->rows[i];

		if (!row->gone && row->touched < since && row->stored != row->version)
			w->violation = psprintf("row %s stood still through a scan and is stored as %d instead of %d",
									row->id, row->stored, row->version);
		if (was_gone[i] && row->stored >= 0 && !row->missing)
			w->violation = psprintf("row %s was gone before a scan and was not marked missing", row->id);
	}
}

static void
scan(Walk *w)
{
	char	   *cursor = NULL;
	TimestampTz since = 0;
	bool		was_gone[MAX_ROWS];
	bool		quiet = w->lies && chance(w, 0.5);

	for (;;)
	{
		PullPlan	p;
		Pull	   *pull;
		Outcome		outcome;
		StringInfoData buf;

		w->now += TICK;			/* what was touched before is told apart */
		find_form(w, PULL_SCAN, cursor != NULL);
		p = plan(w, PULL_SCAN);
		p.cursor = cursor;
		pull = pull_create(&p);
		if (!pull_was_resumed(pull))
		{
			since = w->now;
			for (int i = 0; i < MAX_ROWS; i++)
			{
				was_gone[i] = i < w->nrows && w->rows[i].gone;
				w->rows[i].candidate = false;
			}
		}
		w->quiet = quiet;
		outcome = carry(w, pull);
		if (outcome == ENDED)
		{
			w->scans++;
			take_marks(w, pull);
			w->shorts += pull_short(pull) != 0;
			check_scan(w, since, was_gone, pull_short(pull));
			w->quiet = false;
			return;
		}
		if (outcome == FAILED)
		{
			w->errors++;
			w->quiet = false;
			return;
		}
		w->restarts++;
		initStringInfo(&buf);
		pull_cursor(pull, &buf);
		cursor = buf.data;
	}
}

/* For messages; -1: no time. */
static int64
seconds_ago(const Walk *w, TimestampTz t)
{
	return TIMESTAMP_NOT_FINITE(t) ? -1 : (w->now - t) / USECS_PER_SEC;
}

static void
cycle(Walk *w, bool quiet)
{
	PullPlan	p;
	Pull	   *pull;
	Outcome		outcome;
	bool		wrong;			/* is taken to take dates in another form */

	w->quiet = quiet;
	find_form(w, PULL_CYCLE, false);
	wrong = filter_takes_dates(w->known) && w->known != w->dates;
	p = plan(w, PULL_CYCLE);
	pull = pull_create(&p);
	outcome = carry(w, pull);
	w->quiet = false;
	if (outcome == ENDED)
	{
		w->cycles++;
		take_marks(w, pull);
	}
	else
		w->restarts++;
	if (!quiet || wrong || w->violation != NULL)
		return;
	if (outcome != ENDED)
		w->violation = "a quiet cycle failed";
	for (int i = 0; i < w->nrows && w->violation == NULL; i++)
	{
		const Row  *row = &w->rows[i];
		bool		may_differ = row->silent || w->nulls == NULLS_AS_CREATED ||
			(row->created == DT_NOBEGIN && row->stored < 0 && row->modified == DT_NOBEGIN);

		if (!row->gone && row->stored != row->version && (!may_differ || row->open || (row->stored >= 0 && row->stored_open && !row->missing)))
			w->violation = psprintf("row %s (created " INT64_FORMAT ", modified " INT64_FORMAT " of watermarks " INT64_FORMAT " and " INT64_FORMAT ", touched " INT64_FORMAT ", open %d) is stored as %d instead of %d after a quiet cycle",
									row->id, seconds_ago(w, row->created), seconds_ago(w, row->modified),
									seconds_ago(w, p.created_watermark), seconds_ago(w, p.modified_watermark),
									seconds_ago(w, row->touched), row->open, row->stored, row->version);
	}
}

/* A lie is found out by the counts alone, so these are there, and no smaller than so. */
static void
tell_lies(Walk *w)
{
	w->empty = w->no_id = 0;
	w->no_offset = w->no_filter = w->other_order = w->huge_counts = false;
	w->lies = chance(w, 0.3);
	if (!w->lies)
		return;
	w->no_counts = false;
	w->count_error = Max(w->count_error, 0);
	w->served = w->page_rows;
	w->empty = chance(w, 0.4) ? 0.05 : chance(w, 0.3) ? 0.5 : 0;
	w->no_offset = chance(w, 0.15);
	w->no_filter = chance(w, 0.15);
	w->other_order = chance(w, 0.3);
	w->no_id = chance(w, 0.2) ? 0.1 : 0;
	w->huge_counts = chance(w, 0.2);
}

static void
walk(Walk *w, uint64 seed)
{
	int			rounds;

	pg_prng_seed(&w->rng, seed);
	w->nrows = 0;
	w->now = INT64CONST(700000000) * USECS_PER_SEC;
	w->nulls = below(w, NUM_NULL_ORDERS);
	w->page_rows = 4 + below(w, 6);
	w->window_rows = 8 + below(w, 30);
	w->concurrency = 1 + below(w, 4);
	w->count_error = chance(w, 0.7) ? 0 : below(w, 7) - 3;
	/* short pages and counts that are off by as much cannot be told from the end */
	w->served = chance(w, 0.7) || w->count_error != 0 ? w->page_rows : w->page_rows - 1 - below(w, 2);
	w->no_counts = chance(w, 0.1);
	w->undated = chance(w, 0.5) ? 0 : chance(w, 0.5) ? 0.1 : 0.4;
	w->undated_last = chance(w, 0.5);
	w->dates = chance(w, 0.4) ? DATES_QUOTED : any_form(w);
	w->fickle = chance(w, 0.3);
	w->known = DATES_UNKNOWN;
	w->dates_failed = false;
	tell_lies(w);
	w->marks.created_watermark = w->marks.modified_watermark = DT_NOBEGIN;
	w->marks.null_modified = 0;
	for (int i = below(w, 80); i > 0; i--)
		add_row(w, w->now - below(w, 40) * TICK * 10);
	rounds = 1 + below(w, 4);
	scan(w);
	while (rounds-- > 0 && w->violation == NULL)
	{
		for (int i = below(w, 12); i > 0; i--)
			happen(w);
		/* behind what a cycle looks at once more, or not */
		if (chance(w, 0.5))
			w->now += PAUSE;
		cycle(w, false);
		if (chance(w, 0.5))
			w->now += PAUSE;
		if (w->violation == NULL && w->marks.modified_watermark != DT_NOBEGIN && w->count_error == 0 && !w->lies)
			cycle(w, true);
		if (w->violation == NULL && chance(w, 0.4))
			scan(w);
	}
}

static const char *
lies_of(const Walk *w)
{
	return !w->lies ? "" : psprintf(", lies: %.0f%% empty%s%s%s%s, %.0f%% without id", w->empty * 100,
									w->no_offset ? ", no offset" : "", w->no_filter ? ", no filter" : "",
									w->other_order ? ", other order" : "", w->huge_counts ? ", huge counts" : "",
									w->no_id * 100);
}

/* unit_pull(seed bigint, walks int): what happened, and the first violation */
Datum
unit_pull(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		seed = PG_GETARG_INT64(0);
	int			walks = PG_GETARG_INT32(1);
	Walk	   *w = palloc0(sizeof(Walk));
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "walk", ALLOCSET_DEFAULT_SIZES);
	Datum		values[8];
	bool		nulls[8] = {false};
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < walks && w->violation == NULL; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		CHECK_FOR_INTERRUPTS();
		walk(w, (uint64) seed + i);
		MemoryContextSwitchTo(old);
		if (w->violation != NULL)
			w->violation = psprintf("seed " INT64_FORMAT " (%d rows, pages of %d, windows of %d, %d at once, nulls %d, counts %+d%s, undated %.1f, dates %d known %d%s): %s",
									seed + i, w->nrows, w->page_rows, w->window_rows, w->concurrency, w->nulls,
									w->count_error, w->no_counts ? " or none" : "", w->undated, w->dates, w->known, lies_of(w), w->violation);
		MemoryContextReset(cxt);
	}
	values[0] = Int64GetDatum(w->fetches);
	values[1] = Int64GetDatum(w->scans);
	values[2] = Int64GetDatum(w->cycles);
	values[3] = Int64GetDatum(w->restarts);
	values[4] = Int64GetDatum(w->marked);
	values[5] = Int64GetDatum(w->errors);
	values[6] = Int64GetDatum(w->shorts);
	nulls[7] = w->violation == NULL;
	if (w->violation != NULL)
		values[7] = CStringGetTextDatum(w->violation);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
