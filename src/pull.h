/*-------------------------------------------------------------------------
 *
 * pull.h
 *	  Which pages a pull asks for, in which order, and when it stops: a state
 *	  machine without input or output.
 *
 * Whoever carries it asks pull_next() what to do, and hands back what came of
 * it.  Strings given to it are copied; what it returns is allocated in the
 * context it was made in.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PULL_H
#define ACCESSREQ_PULL_H

#include "postgres.h"
#include "lib/stringinfo.h"

typedef struct Pull Pull;

typedef enum PullAction
{
	PULL_FETCH,					/* ask for the page that *fetch describes */
	PULL_WAIT,					/* nothing until a page under way has come */
	PULL_DONE					/* everything was seen */
} PullAction;

/* What is wrong with a tenant that answers the same page again. */
#define PULL_STANDS_STILL "the page ends where the one before it ended"

/* A page to ask for, by accountActivityItemId ascending. */
typedef struct PullFetch
{
	const char *after;			/* ids greater than this; NULL: from the start */
	int			limit;
	bool		count;			/* ask for the total too */
} PullFetch;

/* What a page brought. */
typedef struct PullPage
{
	int			nitems;
	const char *last_id;		/* of the last item that has one, or NULL */
	size_t		last_id_len;
	int64		total;			/* -1: not told */
	bool		past_end;		/* the 400 that means the same as no items */
} PullPage;

/* Where a pull stands; total is -1 while unknown. */
typedef struct PullProgress
{
	int64		seen;
	int64		total;
} PullProgress;

/* A pull of everything; "cursor" is one that pull_cursor() wrote, or NULL. */
extern Pull *pull_create(const char *cursor);

extern PullAction pull_next(Pull *pull, PullFetch *fetch);

/*
 * Hand in a page.  Returns NULL, or what makes it impossible to go on (a
 * constant): then the run ends as an error and nothing was taken in.
 */
extern const char *pull_page(Pull *pull, const PullPage *page);

/* Where the pull stands after the last page handed in, as JSON text. */
extern void pull_cursor(const Pull *pull, StringInfo buf);
extern PullProgress pull_progress(const Pull *pull);

#endif							/* ACCESSREQ_PULL_H */
