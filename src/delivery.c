/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  Actions on their way: claimed, sent, and what became of them.
 *
 * What is claimed leaves at once: the budget is asked before.  So a crash finds
 * few actions of which nobody knows whether they were sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "acted.h"
#include "answer.h"
#include "api.h"
#include "delivery.h"
#include "job.h"
#include "merge.h"
#include "row.h"
#include "token.h"
#include "unit.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "verdict.h"

/* A Retry-After that is longer is kept in sync_job, over a restart too. */
#define LONG_RETRY_AFTER_US (30 * USECS_PER_SEC)

static void
delivery_close(Delivery *delivery)
{
	dlist_delete(&delivery->node);
	if (delivery->call != NULL)
		call_free(delivery->call);
	MemoryContextDelete(delivery->cxt);
}

int
delivery_count(Deliveries *d, const char *server)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &d->under_way)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		n += strcmp(delivery->sender->queue.server, server) == 0;
	}
	return n;
}

/* ------------------------------------------------------------ what became of them */

static void
fill_error(ActionOutcome *outcome, const ApiError *error)
{
	if (error == NULL)
		return;
	outcome->http_status = error->status;
	outcome->error = answer_error_line(error);
	outcome->error_code = error->sqlstate;
	outcome->tracking_id = error->tracking_id;
}

/*
 * A configuration that could not even be read was not changed; one that was put
 * several times may have been taken by each.
 */
static Verdict
verdict_of_call(const Delivery *delivery)
{
	Verdict		verdict = verdict_of_answer(call_error(delivery->call),
											list_length(delivery->actions));

	if (delivery->reads_config)
		return verdict == VERDICT_UNKNOWN ? VERDICT_AGAIN : verdict;
	return verdict == VERDICT_AGAIN && call_was_sent(delivery->call) ? VERDICT_UNKNOWN : verdict;
}

/*
 * An answer to a close may list errors, of which nothing but that there is a
 * list is documented: they are shown and not understood.
 */
static const char *
listed_errors(const Delivery *delivery, const JsonValue *answer)
{
	const JsonValue *list = json_get(answer, "errors");

	if (((Action *) linitial(delivery->actions))->kind != ACTION_CLOSE || json_size(list) == 0)
		return NULL;
	return psprintf("The tenant took the call and lists errors: %s",
					api_error_text(json_print(list)));
}

/* Of a call that has ended: for all of its actions the same. */
static ActionOutcome
outcome_of_call(Delivery *delivery)
{
	ActionOutcome outcome = {0};
	HttpResponse *response = call_response(delivery->call);
	const JsonValue *answer;
	const char *problem;

	fill_error(&outcome, call_error(delivery->call));
	switch (verdict_of_call(delivery))
	{
		case VERDICT_DONE:
			outcome.state = "done";
			outcome.settled = true;
			outcome.http_status = response->status;
			outcome.answer = answer_jsonb(delivery->call);
			if (response->tracking_id[0])
				outcome.tracking_id = api_error_text(response->tracking_id);
			answer = answer_parse(delivery->call, &problem);
			outcome.ids = answer_created(answer, &outcome.nids);
			outcome.error = listed_errors(delivery, answer);
			break;
		case VERDICT_UNKNOWN:
			outcome.state = "unknown";
			outcome.error_code = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
			break;
		case VERDICT_AGAIN:
			outcome.state = "queued";
			outcome.http_status = 0;
			break;
		case VERDICT_ALONE:
			outcome.state = "queued";
			break;
		default:
			outcome.state = "failed";
			outcome.settled = true;
			break;
	}
	return outcome;
}

/* The next cycle of a pull reads first what was acted on. */
static void
note_acted(const Delivery *delivery, const Action *action, const ActionOutcome *outcome)
{
	if (strcmp(outcome->state, "done") != 0 && strcmp(outcome->state, "unknown") != 0)
		return;
	acted_note(delivery->tenant->serverid, action->ids, action->nids);
	if (action->kind == ACTION_CREATE)
		acted_note(delivery->tenant->serverid, outcome->ids, outcome->nids);
}

static void
note_delivery(Delivery *delivery)
{
	ActionOutcome outcome = outcome_of_call(delivery);
	int64		limited_us = call_limited_us(delivery->call);
	ListCell   *cell;

	foreach(cell, delivery->actions)
	{
		Action	   *action = lfirst(cell);
		ActionOutcome own = outcome;

		/* what the answer names was made by a create */
		if (action->kind != ACTION_CREATE)
			own.nids = 0;
		action_note(action, "sending", &own);
		note_acted(delivery, action, &own);
	}
	if (limited_us > LONG_RETRY_AFTER_US)
		job_note_retry_after(delivery->sender->queue.server, limited_us);
}

/* ------------------------------------------------------------------------ sending */

static void
start_call(Delivery *delivery, CallSpec *spec, bool prepaid)
{
	spec->share = CALL_OF_ACTION;
	/* what may have to be waited for waits in the queue */
	spec->patience_us = 1;
	spec->prepaid = prepaid;
	delivery->call = call_start(delivery->sender->d->calls, spec);
	delivery->sender->d->to_send = true;
}

static void
make_close(CallSpec *spec, const Tenant *tenant, const Action *a, const JsonValue *body)
{
	api_close(spec, tenant, a->ids, a->nids, json_get_string(body, "message"),
			  json_get_string(body, "executionStatus"), json_get_string(body, "completionStatus"));
}

static void
make_cancel(CallSpec *spec, const Delivery *delivery, const JsonValue *body)
{
	const char *comment = json_get_string(body, "comment");
	int			n = list_length(delivery->actions);
	const char **ids = palloc(sizeof(char *) * n);

	for (int i = 0; i < n; i++)
	{
		const Action *action = list_nth(delivery->actions, i);

		if (action->nids != 1)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("action " INT64_FORMAT " does not name the access request to cancel",
							action->id)));
		ids[i] = action->ids[0];
	}
	if (n > 1)
		api_bulk_cancel(spec, delivery->tenant, ids, n, comment);
	else
		api_cancel(spec, delivery->tenant, ids[0], comment);
}

/* The first call of a delivery, whose request is taken out of the budget. */
static void
start_delivery(Delivery *delivery)
{
	const Action *first = linitial(delivery->actions);
	const char *problem;
	const JsonValue *body = json_parse(first->request, strlen(first->request),
									   CurrentMemoryContext, &problem);
	CallSpec	spec;

	switch (first->kind)
	{
		case ACTION_CREATE:
			api_create(&spec, delivery->tenant, first->request, body);
			break;
		case ACTION_CANCEL:
			make_cancel(&spec, delivery, body);
			break;
		case ACTION_CLOSE:
			make_close(&spec, delivery->tenant, first, body);
			break;
		case ACTION_MERGE_CONFIG:
			api_get_config(&spec, delivery->tenant);
			delivery->reads_config = true;
			break;
	}
	start_call(delivery, &spec, true);
}

/* The configuration is there: merge, and put it back. */
static void
put_merged(void *arg)
{
	Delivery   *delivery = arg;
	Call	   *read = delivery->call;
	const Action *action = linitial(delivery->actions);
	Jsonb	   *base = DatumGetJsonbP(answer_jsonb(read));
	Jsonb	   *patch = DatumGetJsonbP(row_jsonb(action->request, strlen(action->request)));
	CallSpec	spec;

	api_put_config(&spec, delivery->tenant, merge_config(base, patch, delivery->tenant));
	start_call(delivery, &spec, false);
	call_free(read);
	delivery->reads_config = false;
	delivery->ended = false;
}

/* ----------------------------------------------------------------------- claiming */

/* Actions that will go in one call. */
typedef struct Parcel
{
	const char *comment;		/* NULL: nothing else can join it */
	int64		ids[API_MAX_BULK_CANCEL];
	int			n;
} Parcel;

/*
 * Cancels with the same comment go together; one sender is one owner.  Returns
 * the number of parcels.
 */
static int
pack(List *candidates, bool bulk, Parcel *parcels, int most)
{
	ListCell   *cell;
	int			n = 0;

	foreach(cell, candidates)
	{
		ActionCandidate *c = lfirst(cell);
		bool		joins = bulk && c->kind == ACTION_CANCEL && !c->alone && c->comment != NULL;
		int			i = joins ? 0 : n;

		while (i < n && (parcels[i].comment == NULL || parcels[i].n == API_MAX_BULK_CANCEL ||
						 strcmp(parcels[i].comment, c->comment) != 0))
			i++;
		if (i == most)
			continue;
		if (i == n)
		{
			parcels[n].comment = joins ? c->comment : NULL;
			parcels[n++].n = 0;
		}
		parcels[i].ids[parcels[i].n++] = c->id;
	}
	return n;
}

static Action *
find_action(List *actions, int64 id)
{
	ListCell   *cell;

	foreach(cell, actions)
	{
		if (((Action *) lfirst(cell))->id == id)
			return lfirst(cell);
	}
	return NULL;
}

/* A delivery of those of a parcel that could be claimed; NULL where none was. */
static Delivery *
make_delivery(Sender *s, Oid serverid, const Parcel *parcel, List *claimed)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "accessreq delivery",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Delivery   *delivery = palloc0(sizeof(Delivery));

	delivery->cxt = cxt;
	delivery->sender = s;
	for (int i = 0; i < parcel->n; i++)
	{
		const Action *action = find_action(claimed, parcel->ids[i]);

		if (action != NULL)
			delivery->actions = lappend(delivery->actions, action_copy(action));
	}
	if (delivery->actions != NIL)
		delivery->tenant = tenant_open(serverid, s->queue.owner_oid, cxt);
	MemoryContextSwitchTo(old);
	if (delivery->actions == NIL)
	{
		MemoryContextDelete(cxt);
		return NULL;
	}
	MemoryContextSetParent(cxt, s->d->cxt);
	dlist_push_tail(&s->d->under_way, &delivery->node);
	return delivery;
}

/* How many of the parcels may leave now, by the budget. */
static int
prepay(Sender *s, const Tenant *tenant, int n)
{
	for (int i = 0; i < n; i++)
	{
		int64		wait = call_prepay(tenant, CALL_OF_ACTION);

		if (wait > 0)
		{
			sender_pause(s, wait);
			return i;
		}
	}
	return n;
}

static void
claim_parcels(Sender *s, Oid serverid, const Parcel *parcels, int n)
{
	int64	   *ids = palloc(sizeof(int64) * n * API_MAX_BULK_CANCEL);
	int			nids = 0;
	List	   *claimed;

	for (int i = 0; i < n; i++)
	{
		memcpy(ids + nids, parcels[i].ids, sizeof(int64) * parcels[i].n);
		nids += parcels[i].n;
	}
	claimed = action_claim(ids, nids);
	for (int i = 0; i < n; i++)
	{
		Delivery   *delivery = make_delivery(s, serverid, &parcels[i], claimed);

		if (delivery == NULL)
			continue;
		/* should it raise, it is known which could not be made */
		memcpy(s->building, parcels[i].ids, sizeof(int64) * parcels[i].n);
		s->nbuilding = parcels[i].n;
		start_delivery(delivery);
		s->nbuilding = 0;
	}
}

/*
 * Claim what may leave now.  Raises what the owner's own call would, of rights,
 * options and hosts.
 */
static void
claim(Sender *s)
{
	Oid			serverid = tenant_resolve(s->queue.server, s->queue.owner_oid);
	const Tenant *tenant = tenant_open(serverid, s->queue.owner_oid, CurrentMemoryContext);
	bool		bulk = api_has(tenant, API_BULK_CANCEL);
	int			slots = Min(tenant->max_concurrency - delivery_count(s->d, s->queue.server),
							call_room(s->d->calls));
	List	   *candidates;
	Parcel	   *parcels;
	uint64		serial;
	int			n;

	s->full = slots <= 0;
	if (s->full)
		return;
	if (token_get(tenant, &serial) == NULL)
	{
		s->wants_token = true;
		return;
	}
	candidates = action_candidates(&s->queue, bulk ? slots * API_MAX_BULK_CANCEL : slots);
	parcels = palloc(sizeof(Parcel) * slots);
	n = prepay(s, tenant, pack(candidates, bulk, parcels, slots));
	if (n > 0)
		claim_parcels(s, tenant->serverid, parcels, n);
	s->more = candidates != NIL;
}

/* ------------------------------------------------------------- a unit of a sender */

static bool
continues(const Delivery *delivery)
{
	return delivery->reads_config && call_error(delivery->call) == NULL;
}

/* Those of a sender that have ended and are to be written down. */
static void
note_ended(void *arg)
{
	Sender	   *s = arg;
	dlist_iter	iter;

	dlist_foreach(iter, &s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->sender == s && delivery->ended && !continues(delivery))
			note_delivery(delivery);
	}
}

static void
note_and_claim(void *arg)
{
	Sender	   *s = arg;

	note_ended(s);
	if (sender_claims_now(s))
		claim(s);
}

static void
close_ended(Sender *s)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);
		Verdict		verdict;

		if (delivery->sender != s || !delivery->ended || continues(delivery))
			continue;
		verdict = verdict_of_call(delivery);
		if (verdict == VERDICT_AGAIN || verdict == VERDICT_UNKNOWN)
			sender_failed(s, call_limited_us(delivery->call));
		else
			s->failures = 0;
		if (verdict == VERDICT_UNKNOWN)
			s->queue.unknown = true;
		/* what waited for it can go, and what goes back can be sent again */
		s->more = true;
		sender_none_is_full(s->d);
		delivery_close(delivery);
	}
}

/* Deliveries that were made in a transaction that is undone. */
static void
drop_since(Deliveries *d, dlist_node *last)
{
	while (!dlist_is_empty(&d->under_way) && dlist_tail_node(&d->under_way) != last)
		delivery_close(dlist_container(Delivery, node, dlist_tail_node(&d->under_way)));
}

static bool
has_ended(const Sender *s)
{
	dlist_iter	iter;

	dlist_foreach(iter, &s->d->under_way)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->sender == s && delivery->ended && !continues(delivery))
			return true;
	}
	return false;
}

/* Write down what has ended and claim more, together: one flush of the disk. */
void
delivery_serve(Sender *s)
{
	Deliveries *d = s->d;
	dlist_node *last = dlist_is_empty(&d->under_way) ? NULL : dlist_tail_node(&d->under_way);
	bool		claims = sender_claims_now(s);
	ErrorData  *error;

	if (!claims && !has_ended(s))
		return;
	error = unit_run(note_and_claim, s);
	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
		drop_since(d, last);
	if (error != NULL && has_ended(s))
	{
		ErrorData  *again = unit_run(note_ended, s);

		if (again != NULL)
		{
			sender_unit_failed(s, again);
			return;
		}
	}
	close_ended(s);
	if (error != NULL && claims)
		sender_cannot_send(s, error);
}

/* --------------------------------------------------------- configurations, merged */

typedef struct Trouble
{
	Delivery   *delivery;
	int			sqlstate;
	const char *message;
} Trouble;

static void
fail_merge(void *arg)
{
	Trouble    *t = arg;
	ActionOutcome outcome = {0};

	outcome.state = "failed";
	outcome.settled = true;
	outcome.error = t->message;
	outcome.error_code = t->sqlstate;
	action_note(linitial(t->delivery->actions), "sending", &outcome);
}

/* One with a key that the configuration does not have, for instance, fails. */
void
delivery_go_on_merging(Deliveries *d)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);
		ErrorData  *error;

		if (!delivery->ended || !continues(delivery))
			continue;
		error = unit_run(put_merged, delivery);
		if (error != NULL && !unit_error_passes(error))
		{
			Trouble		t = {delivery, error->sqlerrcode, error->message};

			if (unit_run(fail_merge, &t) != NULL)
				continue;
			delivery->sender->more = true;
			sender_none_is_full(d);
			delivery_close(delivery);
		}
	}
}
