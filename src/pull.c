/*-------------------------------------------------------------------------
 *
 * pull.c
 *	  Which pages a pull asks for, in which order, and when it stops.
 *
 * Offsets drift while rows come and go, so a page that is asked for by offset
 * can miss rows that stood still.  A pull goes by the item's id instead: each
 * page asks for ids greater than the last one seen.  A row that stands still
 * has an id that does not move, so no page can pass it by.
 *
 * Only an empty page ends a pull.  A short one does not: a tenant that filters
 * a page after cutting it would make us stop early, and one request more costs
 * less than a row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "json.h"
#include "pull.h"
#include "utils/palloc.h"

struct Pull
{
	MemoryContext cxt;
	char	   *after;			/* NULL: nothing seen yet */
	int64		seen;
	int64		total;
	bool		fetching;		/* a page is under way */
	bool		done;
};

/*
 * Ids stand in a cursor as http_encode() writes them: a database whose encoding
 * lacks a character of one could not store it else.
 */
static char *
decoded(const char *text)
{
	char	   *result = pstrdup(text);
	char	   *out = result;

	for (; *text; text++)
	{
		unsigned int c;

		if (*text == '%' && sscanf(text + 1, "%2x", &c) == 1)
		{
			*out++ = (char) c;
			text += 2;
		}
		else
			*out++ = *text;
	}
	*out = '\0';
	return result;
}

static void
load_cursor(Pull *pull, const char *cursor)
{
	const char *problem;
	const JsonValue *c = json_parse(cursor, strlen(cursor), CurrentMemoryContext, &problem);
	const char *after = json_get_string(c, "after");

	/* one of another release: start anew, which is always right */
	if (after == NULL || !json_get_int64(c, "seen", &pull->seen))
		return;
	pull->after = decoded(after);
	if (!json_get_int64(c, "total", &pull->total))
		pull->total = -1;
}

Pull *
pull_create(const char *cursor)
{
	Pull	   *pull = palloc0(sizeof(Pull));

	pull->cxt = CurrentMemoryContext;
	pull->total = -1;
	if (cursor != NULL)
		load_cursor(pull, cursor);
	return pull;
}

PullAction
pull_next(Pull *pull, PullFetch *fetch)
{
	if (pull->done)
		return PULL_DONE;
	if (pull->fetching)
		return PULL_WAIT;
	pull->fetching = true;
	fetch->after = pull->after;
	fetch->limit = API_MAX_PAGE;
	fetch->count = pull->total < 0;
	return PULL_FETCH;
}

const char *
pull_page(Pull *pull, const PullPage *page)
{
	char	   *last;

	pull->fetching = false;
	if (page->nitems == 0)
	{
		pull->done = true;
		return NULL;
	}
	if (page->last_id == NULL)
		return "no item of the page has an accountActivityItemId";
	last = MemoryContextAlloc(pull->cxt, page->last_id_len + 1);
	memcpy(last, page->last_id, page->last_id_len);
	last[page->last_id_len] = '\0';
	/* the tenant's order may not be ours, so only standing still is wrong */
	if (pull->after != NULL && strcmp(last, pull->after) == 0)
		return PULL_STANDS_STILL;
	if (pull->after != NULL)
		pfree(pull->after);
	pull->after = last;
	pull->seen += page->nitems;
	if (page->total >= 0 && pull->total < 0)
		pull->total = pull->seen - page->nitems + page->total;
	return NULL;
}

void
pull_cursor(const Pull *pull, StringInfo buf)
{
	appendStringInfoString(buf, "{\"after\":");
	if (pull->after != NULL)
		appendStringInfo(buf, "\"%s\"", http_encode(pull->after));
	else
		appendStringInfoString(buf, "null");
	appendStringInfo(buf, ",\"seen\":" INT64_FORMAT ",\"total\":" INT64_FORMAT "}",
					 pull->seen, pull->total);
}

PullProgress
pull_progress(const Pull *pull)
{
	PullProgress p = {pull->seen, pull->total};

	return p;
}
