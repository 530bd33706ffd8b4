/*-------------------------------------------------------------------------
 *
 * inquiry.c
 *	  Looking in the tenant what became of actions whose answer was lost.
 *
 * Creates are looked for in one list, what this user has requested since the
 * first of them, and in the rows that are stored here.  Their clientMetadata has
 * their token.  Cancels and closes are
 * looked up by the ids of their access requests, as many in one request as the
 * api allows; changes of the configuration in the configuration.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "answer.h"
#include "api.h"
#include "filter.h"
#include "idset.h"
#include "inquiry.h"
#include "item.h"
#include "lib/stringinfo.h"
#include "listing.h"
#include "mark.h"
#include "merge.h"
#include "row.h"
#include "stored.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * The tenant's clock may differ from ours, by which we know when a create was
 * sent: so much before that the list begins.
 */
#define CLOCK_ALLOWANCE_US USECS_PER_HOUR

/* A look waits for the budget, and for no longer than this when told to. */
#define PATIENCE_US (30 * USECS_PER_SEC)

/* States of a request's items, as evidence. */
typedef struct Seen
{
	const char *request_id;
	const char *state;
	const char *item_id;		/* account_activity_item_id */
} Seen;

typedef struct Sought
{
	Action	   *action;
	List	   *seen;			/* of Seen */
	bool		in_place;
	const char *refused;
} Sought;

/* One list to be read, or the configuration. */
typedef struct Question
{
	Listing		listing;
	const char **ids;			/* access requests it is about; NULL: creates,
								 * or the configuration */
	int			nids;
	bool		config;
	Call	   *call;			/* under way */
	bool		answered;
} Question;

struct Inquiry
{
	MemoryContext cxt;
	const Tenant *tenant;
	CallSet    *calls;
	Sought	   *sought;
	int			nsought;
	List	   *questions;		/* that have not come to their end */
	int			under_way;
	bool		news;
	ApiError   *error;
	int64		limited_us;
};

/* ---------------------------------------------------------------- its questions */

static Question *
add_question(Inquiry *q, const char *filter, const char *requested_by, bool config)
{
	Question   *question = palloc0(sizeof(Question));

	question->listing.filter = filter;
	question->listing.requested_by = requested_by;
	question->config = config;
	q->questions = lappend(q->questions, question);
	return question;
}

/* Since when the list is read in which creates are looked for; DT_NOEND: none. */
static TimestampTz
first_create(const Inquiry *q)
{
	TimestampTz first = DT_NOEND;

	for (int i = 0; i < q->nsought; i++)
	{
		const Action *a = q->sought[i].action;

		if (a->kind == ACTION_CREATE)
			first = Min(first, a->sent_at == DT_NOBEGIN ? a->enqueued_at : a->sent_at);
	}
	return first;
}

/* Where it is not known that a filter takes a date, the list is sorted by it. */
static void
ask_for_creates(Inquiry *q, DateForm dates, TimestampTz since)
{
	Question   *question = add_question(q, filter_created(dates, since, DT_NOBEGIN), "me", false);

	question->listing.newest = !filter_takes_dates(dates);
	question->listing.since = since;
}

static void
ask_for_requests(Inquiry *q)
{
	IdSet	   *ids = idset_create(CurrentMemoryContext, q->nsought);
	int			per = api_ids_per_filter(q->tenant);
	const char **all;
	int			n;

	for (int i = 0; i < q->nsought; i++)
	{
		const Action *a = q->sought[i].action;

		for (int k = 0; a->kind != ACTION_CREATE && k < a->nids; k++)
			(void) idset_add(ids, a->ids[k], strlen(a->ids[k]));
	}
	all = idset_ids(ids);
	n = (int) idset_size(ids);
	for (int k = 0; k < n; k += per)
	{
		Question   *question = add_question(q, filter_requests(all + k, Min(per, n - k)), NULL, false);

		question->ids = all + k;
		question->nids = Min(per, n - k);
	}
}

static bool
has_kind(const Inquiry *q, ActionKind kind)
{
	for (int i = 0; i < q->nsought; i++)
	{
		if (q->sought[i].action->kind == kind)
			return true;
	}
	return false;
}

static const char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

Inquiry *
inquiry_open(const Tenant *tenant, CallSet *calls, List *actions, DateForm dates)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq inquiry",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Inquiry    *q = palloc0(sizeof(Inquiry));
	ListCell   *cell;
	TimestampTz since;

	q->cxt = cxt;
	q->tenant = tenant;
	q->calls = calls;
	q->sought = palloc0(sizeof(Sought) * list_length(actions));
	foreach(cell, actions)
		q->sought[q->nsought++].action = action_copy(lfirst(cell));
	since = first_create(q);
	if (since != DT_NOEND)
		ask_for_creates(q, dates, since - CLOCK_ALLOWANCE_US);
	ask_for_requests(q);
	if (has_kind(q, ACTION_MERGE_CONFIG))
		(void) add_question(q, NULL, NULL, true);
	MemoryContextSwitchTo(old);
	return q;
}

void
inquiry_close(Inquiry *q)
{
	ListCell   *cell;

	foreach(cell, q->questions)
	{
		Question   *question = lfirst(cell);

		if (question->call != NULL)
			call_free(question->call);
	}
	MemoryContextDelete(q->cxt);
}

/* ----------------------------------------------------------------- what was seen */

static void
note_seen(Sought *s, const char *item_id, const char *request_id, const char *state)
{
	Seen	   *seen;
	ListCell   *cell;

	/* a row that moves between two pages is read twice; what is stored may be old */
	foreach(cell, s->seen)
	{
		if (strcmp(((Seen *) lfirst(cell))->item_id, item_id) == 0)
			return;
	}
	seen = palloc(sizeof(Seen));
	seen->request_id = copy_text(request_id);
	seen->state = copy_text(state);
	seen->item_id = pstrdup(item_id);
	s->seen = lappend(s->seen, seen);
}

/* The token in an item's clientMetadata, or NULL. */
static const char *
token_of(const StatusItem *item)
{
	const char *problem;
	const char *metadata = item->client_metadata;

	if (metadata == NULL)
		return NULL;
	return json_get_string(json_parse(metadata, strlen(metadata), CurrentMemoryContext, &problem),
						   MARK_KEY);
}

static bool
is_about(const Action *a, const StatusItem *item, const char *token)
{
	if (a->kind == ACTION_CREATE)
		return token != NULL && strcmp(a->client_token, token) == 0;
	for (int i = 0; i < a->nids; i++)
	{
		if (item->access_request_id != NULL && strcmp(a->ids[i], item->access_request_id) == 0)
			return true;
	}
	return false;
}

static void
see_items(Inquiry *q, const JsonSpan *items, int nitems)
{
	MemoryContext page = AllocSetContextCreate(CurrentMemoryContext, "accessreq looked-up page",
											   ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < nitems; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(page);
		StatusItem	item;
		const char *problem;
		bool		good = items[i].problem == NULL &&
			item_decode(items[i].start, items[i].len, page, &item, &problem);
		const char *token = good ? token_of(&item) : NULL;

		MemoryContextSwitchTo(old);
		for (int k = 0; good && k < q->nsought; k++)
		{
			if (is_about(q->sought[k].action, &item, token))
				note_seen(&q->sought[k], item.account_activity_item_id,
						  item.access_request_id, item.state);
		}
		MemoryContextReset(page);
	}
	MemoryContextDelete(page);
}

void
inquiry_see_stored(Inquiry *q, const char *server)
{
	const char **tokens = palloc(sizeof(char *) * Max(q->nsought, 1));
	int			n = 0;
	MemoryContext old;
	ListCell   *cell;

	for (int i = 0; i < q->nsought; i++)
	{
		if (q->sought[i].action->kind == ACTION_CREATE)
			tokens[n++] = q->sought[i].action->client_token;
	}
	if (n == 0)
		return;
	foreach(cell, stored_marked(server, tokens, n))
	{
		const StoredMarked *row = lfirst(cell);

		old = MemoryContextSwitchTo(q->cxt);
		for (int i = 0; i < q->nsought; i++)
		{
			const Action *a = q->sought[i].action;

			if (a->kind == ACTION_CREATE && strcmp(a->client_token, row->token) == 0)
				note_seen(&q->sought[i], row->item_id, row->request_id, row->state);
		}
		MemoryContextSwitchTo(old);
	}
}

static const ApiError *
see_config(Inquiry *q, Call *call)
{
	const ApiError *error = answer_config_error(call, q->tenant);
	Datum		config;

	if (error != NULL)
		return error;
	config = answer_jsonb(call);
	for (int i = 0; i < q->nsought; i++)
	{
		const char *patch = q->sought[i].action->request;

		if (q->sought[i].action->kind == ACTION_MERGE_CONFIG)
			q->sought[i].in_place = merge_is_in_place(DatumGetJsonbP(config),
													  DatumGetJsonbP(row_jsonb(patch, strlen(patch))));
	}
	return NULL;
}

/* -------------------------------------------------------------------- going on */

bool
inquiry_take(Inquiry *q, Call *call)
{
	ListCell   *cell;

	foreach(cell, q->questions)
	{
		Question   *question = lfirst(cell);

		if (question->call == call)
		{
			question->answered = true;
			q->news = true;
			return true;
		}
	}
	return false;
}

bool
inquiry_has_news(const Inquiry *q)
{
	return q->news;
}

static bool
asks_for(const Question *question, const Action *action)
{
	if (question->ids == NULL)
		return action->kind == (question->config ? ACTION_MERGE_CONFIG : ACTION_CREATE);
	for (int i = 0; i < question->nids; i++)
	{
		for (int k = 0; action->kind != ACTION_CREATE && k < action->nids; k++)
		{
			if (strcmp(question->ids[i], action->ids[k]) == 0)
				return true;
		}
	}
	return false;
}

/*
 * What the tenant refuses to show is not known of these actions; the others are
 * looked up all the same.  Any other error passes, and all is asked again.
 */
static void
fail(Inquiry *q, const Question *question, const ApiError *error)
{
	bool		refused = error->outcome == API_REFUSED ||
		(error->outcome == API_DENIED && error->sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE);

	for (int i = 0; refused && i < q->nsought; i++)
	{
		if (asks_for(question, q->sought[i].action))
			q->sought[i].refused = answer_error_line(error);
	}
	if (!refused && q->error == NULL)
		q->error = api_error_copy(error);
	q->limited_us = Max(q->limited_us, call_limited_us(question->call));
}

/* Read an answer; true where its question has come to its end. */
static bool
read_answer(Inquiry *q, Question *question)
{
	Call	   *call = question->call;
	JsonSpan   *items;
	int			nitems;
	bool		more = false;
	const ApiError *error = question->config ? call_error(call) :
		listing_read(&question->listing, q->tenant, call, &items, &nitems, &more);

	if (error == NULL && question->config)
		error = see_config(q, call);
	else if (error == NULL)
		see_items(q, items, nitems);
	if (error != NULL)
		fail(q, question, error);
	question->call = NULL;
	question->answered = false;
	call_free(call);
	q->under_way--;
	return !more || error != NULL;
}

static void
ask(Inquiry *q, Question *question)
{
	CallSpec	how = {0};

	how.patient = true;
	how.patience_us = PATIENCE_US;
	how.share = CALL_OF_ACTION;
	if (question->config)
	{
		CallSpec	spec;

		api_get_config(&spec, q->tenant);
		spec.patient = how.patient;
		spec.patience_us = how.patience_us;
		spec.share = how.share;
		question->call = call_start(q->calls, &spec);
	}
	else
		question->call = listing_ask(&question->listing, q->tenant, q->calls, &how);
	q->under_way++;
}

void
inquiry_go_on(Inquiry *q)
{
	MemoryContext old = MemoryContextSwitchTo(q->cxt);
	ListCell   *cell;

	q->news = false;
	foreach(cell, q->questions)
	{
		Question   *question = lfirst(cell);

		if (question->answered && read_answer(q, question))
			q->questions = foreach_delete_current(q->questions, cell);
	}
	foreach(cell, q->questions)
	{
		if (((Question *) lfirst(cell))->call == NULL && q->error == NULL &&
			q->under_way < q->tenant->max_concurrency)
			ask(q, lfirst(cell));
	}
	MemoryContextSwitchTo(old);
}

bool
inquiry_is_over(const Inquiry *q)
{
	return q->under_way == 0 && (q->error != NULL || q->questions == NIL);
}

const ApiError *
inquiry_error(const Inquiry *q)
{
	return q->error;
}

int64
inquiry_limited_us(const Inquiry *q)
{
	return q->limited_us;
}

/* ------------------------------------------------------------------ its findings */

/* People times items of a create: as many rows as it can make. */
static int
wanted_items(const char *request)
{
	const char *problem;
	const JsonValue *body = json_parse(request, strlen(request), CurrentMemoryContext, &problem);
	const JsonValue *pairs = json_get(body, "requestedForWithRequestedItems");
	int			n = 0;

	if (json_size(pairs) == 0)
		return json_size(json_get(body, "requestedFor")) * json_size(json_get(body, "requestedItems"));
	for (const JsonValue *p = json_first(pairs); p != NULL; p = json_next(p))
		n += json_size(json_get(p, "requestedItems"));
	return n;
}

/* {"id": ["state", …], …} and the same in words. */
static void
describe(const Sought *s, IdSet *requests, Found *found)
{
	StringInfoData json,
				words;
	const char **ids = idset_ids(requests);

	initStringInfo(&json);
	initStringInfo(&words);
	appendStringInfoString(&json, "{\"found\":{");
	for (int i = 0; i < (int) idset_size(requests); i++)
	{
		ListCell   *cell;
		const char *separator = "";

		if (i > 0)
			appendStringInfoChar(&json, ',');
		json_append_string(&json, ids[i]);
		appendStringInfoString(&json, ":[");
		foreach(cell, s->seen)
		{
			const Seen *seen = lfirst(cell);

			if (seen->request_id == NULL || strcmp(seen->request_id, ids[i]) != 0)
				continue;
			appendStringInfoString(&json, separator);
			json_append_string(&json, seen->state ? seen->state : "");
			if (words.len < 200)
				appendStringInfo(&words, "%s%s", words.len > 0 ? ", " : "",
								 seen->state ? api_error_text(seen->state) : "no state");
			separator = ",";
		}
		appendStringInfoChar(&json, ']');
	}
	appendStringInfoString(&json, "}}");
	found->evidence = json.data;
	found->what = words.data;
}

const Tenant *
inquiry_tenant(const Inquiry *q)
{
	return q->tenant;
}

int
inquiry_size(const Inquiry *q)
{
	return q->nsought;
}

Found
inquiry_found(Inquiry *q, int i)
{
	const Sought *s = &q->sought[i];
	IdSet	   *requests = idset_create(CurrentMemoryContext, list_length(s->seen) + 1);
	Found		found = {0};
	ListCell   *cell;

	found.action = s->action;
	found.refused = s->refused;
	found.finding.in_place = s->in_place;
	found.finding.items = list_length(s->seen);
	foreach(cell, s->seen)
	{
		const Seen *seen = lfirst(cell);

		if (seen->request_id != NULL)
			(void) idset_add(requests, seen->request_id, strlen(seen->request_id));
		if (!row_is_closed_state(seen->state))
			found.finding.open++;
		if (seen->state != NULL && strcmp(seen->state, "CANCELLED") == 0)
			found.finding.cancelled++;
	}
	found.finding.requests = (int) idset_size(requests);
	if (s->action->kind == ACTION_CREATE)
	{
		/* what is stored of it says more than a list that is not shown */
		if (s->seen != NIL)
			found.refused = NULL;
		found.finding.wanted = wanted_items(s->action->request);
		found.ids = idset_ids(requests);
		found.nids = (int) idset_size(requests);
	}
	describe(s, requests, &found);
	return found;
}
