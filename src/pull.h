/*-------------------------------------------------------------------------
 *
 * pull.h
 *	  Which pages a pull asks for, in which order, and when it stops: a state
 *	  machine without input or output.
 *
 * Whoever carries it asks pull_next() what to do, and hands back what came of
 * it.  What is given to it is copied; texts of a PullFetch are the caller's, in
 * the current memory context.  Texts are UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PULL_H
#define ACCESSREQ_PULL_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "filter.h"
#include "lib/stringinfo.h"

typedef struct Pull Pull;
typedef struct PullLane PullLane;

typedef enum PullKind
{
	PULL_CYCLE,					/* what may have changed: steps 1 to 4 */
	PULL_SCAN					/* everything: step 5 */
} PullKind;

/* What a page is asked for. */
typedef enum PullStep
{
	PULL_STEP_ACTED,			/* requests that sessions just acted on */
	PULL_STEP_OPEN,				/* 1: all that is open */
	PULL_STEP_NEW,				/* 2: created since */
	PULL_STEP_CHANGED,			/* 3: modified since */
	PULL_STEP_UNRETURNED,		/* 4: open here, and in none of these */
	PULL_STEP_MEASURE,			/* 5: one row, for its date or the count */
	PULL_STEP_WINDOW,			/* 5: a window over created */
	PULL_STEP_REST,				/* 5: by id, for what has no date */
	PULL_STEP_RECHECK			/* 5: what it did not return, once more */
} PullStep;

typedef enum PullAction
{
	PULL_FETCH,					/* ask for the page that *fetch describes */
	PULL_WAIT,					/* nothing until a page under way has come */
	PULL_ASK_OPEN,				/* answer by pull_give_open() */
	PULL_ASK_MISSING,			/* answer by pull_give_missing() */
	PULL_MARK,					/* mark what is missing, then pull_marked() */
	PULL_DONE					/* all is seen */
} PullAction;

/* What a pull begins with. */
typedef struct PullPlan
{
	PullKind	kind;
	int			max_concurrency;	/* pages under way at once */
	int			page_rows;		/* rows of a full page; 0: the API's limit */
	TimestampTz now;			/* this machine's clock */
	DateForm	dates;			/* that filters take; neither: all goes by id,
								 * and new rows by offset */

	/* of a cycle */
	TimestampTz created_watermark;	/* DT_NOBEGIN: none */
	TimestampTz modified_watermark;
	int64		null_modified;	/* rows that led the last cycle's step 3 with
								 * null modified, see pull.c */
	const char *const *acted_items; /* accountActivityItemIds, or */
	int			nacted_items;
	const char *const *acted_requests;	/* accessRequestIds, to be read first */
	int			nacted_requests;
	int			requests_per_filter;

	/* of a scan */
	int64		window_rows;	/* rows that a window should have; 0: default */
	bool		marks;			/* is missing what it does not return? */
	double		missing_limit;	/* largest share that may be missing at once */
	const char *cursor;			/* one that pull_cursor() wrote, or NULL */
} PullPlan;

/* A page to ask for. */
typedef struct PullFetch
{
	PullLane   *lane;			/* comes back with the page */
	PullStep	step;
	const char *filters;		/* NULL: none */
	const char *sorters;
	bool		executing;		/* request-state=EXECUTING */
	int			limit;
	int64		offset;
	bool		count;			/* ask for the total too */
	bool		wants_times;	/* PullItem.created and modified are read */
	bool		begins;			/* first page of a window or the rest */
	bool		dated;			/* filters by a date, and should match a row */
} PullFetch;

typedef struct PullItem
{
	const char *id;				/* NULL: none that can be read */
	size_t		id_len;
	TimestampTz created;		/* DT_NOBEGIN: none */
	TimestampTz modified;
} PullItem;

/* What a page brought. */
typedef struct PullPage
{
	PullLane   *lane;
	int			nitems;
	const PullItem *items;
	int64		total;			/* X-Total-Count, -1: not told */
	bool		refused;		/* the tenant said that nothing is there */
	TimestampTz date;			/* Date, DT_NOBEGIN: not told */
} PullPage;

/* The rows here that a window, or the rest, should return. */
typedef struct PullRange
{
	bool		all;			/* every row */
	bool		undated;		/* rows without created */
	TimestampTz from;			/* else created from, DT_NOBEGIN: any */
	TimestampTz to;				/* to, exclusive, likewise */
} PullRange;

/* Rows here that a scan's windows should have returned and did not. */
typedef struct PullMissing
{
	int64		open_stored;	/* open rows here that are not marked missing */
	int64		stored;			/* all rows likewise; where none is open */
	int64		open_missing;
	const char *const *ids;
	int			nids;
} PullMissing;

/* Where a pull stands; total is -1 while unknown. */
typedef struct PullProgress
{
	int64		seen;
	int64		total;
} PullProgress;

/* What the next cycle goes on from; in a scan known from its start on. */
typedef struct PullMarks
{
	TimestampTz created_watermark;	/* DT_NOBEGIN: leave it */
	TimestampTz modified_watermark;
	int64		null_modified;	/* -1: leave it */
} PullMarks;

#define PULL_PROBLEM_LEN 200

/* What is wrong with a tenant that answers the same page again. */
#define PULL_STANDS_STILL "the page ends where the one before it ended"

extern Pull *pull_create(const PullPlan *plan);

extern PullAction pull_next(Pull *pull, PullFetch *fetch);

/* What pull_next() wanted could not be asked for: it will want it again. */
extern void pull_unfetch(Pull *pull, PullLane *lane);

/*
 * Hand in a page.  Returns NULL, or what makes it impossible to go on: then the
 * run ends as an error.  *ends tells that it was the last page of a window or
 * of the rest; once that is stored, pull_window_stored() makes the cursor say
 * so.
 */
extern const char *pull_page(Pull *pull, const PullPage *page, bool *ends);
extern void pull_window_stored(Pull *pull, PullLane *lane);

extern PullRange pull_range(const Pull *pull, const PullLane *lane);

/*
 * Were rows of a range in no window, because the tenant has none such?  Then
 * those that are stored are missing as well.
 */
extern bool pull_left_out(const Pull *pull, PullRange *range);

extern void pull_give_open(Pull *pull, const char *const *ids, int nids);

/* Returns NULL, or why nothing may be marked: then the run ends as an error. */
extern const char *pull_give_missing(Pull *pull, const PullMissing *missing);
extern void pull_marked(Pull *pull);

/* A scan's place, as JSON text of ASCII: the windows that are stored. */
extern void pull_cursor(const Pull *pull, StringInfo buf);

/* When the scan began, however often it was taken up since. */
extern TimestampTz pull_started(const Pull *pull);

/* Was anything of the scan done by an earlier run? */
extern bool pull_was_resumed(const Pull *pull);

/*
 * Of how many rows its lists are short: that the tenant counted and did not return,
 * however it was asked; -1: nobody can say.  Nothing is marked missing then.
 */
extern int64 pull_short(const Pull *pull);

extern PullProgress pull_progress(const Pull *pull);
extern PullMarks pull_marks(const Pull *pull);

#endif							/* ACCESSREQ_PULL_H */
