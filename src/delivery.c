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

/* All requests that the process may have under way are others'. */
#define ROOM_PAUSE_US (50 * INT64CONST(1000))

static void
delivery_close(Delivery *delivery)
{
	dlist_delete(&delivery->node);
	if (delivery->call != NULL)
		call_free(delivery->call);
	MemoryContextDelete(delivery->cxt);
}

int
delivery_count(Deliveries *d, Oid serverid)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &d->under_way)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		n += delivery->sender->queue.server_oid == serverid;
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
	return verdict != VERDICT_DONE && call_was_sent(delivery->call) ? VERDICT_UNKNOWN : verdict;
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
	return answer_listed_errors(delivery->call, list);
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
		job_note_retry_after(delivery->sender->queue.server, delivery->sender->queue.owner_oid, limited_us);
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
	Jsonb	   *base = DatumGetJsonbP(answer_config(read, delivery->tenant));
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
	s->waits_for_budget = false;
	for (int i = 0; i < n; i++)
	{
		int64		wait = call_prepay(tenant, CALL_OF_ACTION, &s->budget);

		if (wait > 0)
		{
			s->waits_for_budget = true;
			sender_pause(s, wait);
			return i;
		}
	}
	return n;
}

/*
 * Returns how many of the parcels could be claimed: somebody may have taken
 * actions out of the queue since.
 */
static int
claim_parcels(Sender *s, Oid serverid, const Parcel *parcels, int n)
{
	int64	   *ids = palloc(sizeof(int64) * n * API_MAX_BULK_CANCEL);
	int			nids = 0;
	int			nclaimed = 0;
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
		nclaimed++;
		/* should it raise, it is known which could not be made */
		memcpy(s->building, parcels[i].ids, sizeof(int64) * parcels[i].n);
		s->nbuilding = parcels[i].n;
		start_delivery(delivery);
		s->nbuilding = 0;
	}
	return nclaimed;
}

/* How many calls more may be started; 0: later. */
static int
free_slots(Sender *s, const Tenant *tenant)
{
	int			slots = tenant->max_concurrency - delivery_count(s->d, tenant->serverid);
	int			room = call_room(s->d->calls);

	/* what is under way to the server tells when it ends; what others have does not */
	s->full = slots <= 0;
	if (!s->full && room == 0)
		sender_pause(s, ROOM_PAUSE_US);
	return Max(Min(slots, room), 0);
}

/* Claim what may leave now.  Raises what sender_tenant() does. */
static void
claim(Sender *s)
{
	const Tenant *tenant = sender_tenant(s, CurrentMemoryContext);
	bool		bulk = api_has(tenant, API_BULK_CANCEL);
	int			slots = free_slots(s, tenant);
	List	   *candidates;
	Parcel	   *parcels;
	uint64		serial;
	int			n;
	int			claimed = 0;

	if (slots == 0)
		return;
	if (token_get(tenant, &serial) == NULL)
	{
		s->wants_token = true;
		return;
	}
	/* the server may lead elsewhere by now */
	job_check_same_tenant(tenant, s->queue.server, token_tenant(tenant));
	candidates = action_candidates(&s->queue, slots);
	if (bulk)
		candidates = list_concat(candidates, action_companions(&s->queue, candidates,
															   slots * API_MAX_BULK_CANCEL));
	parcels = palloc(sizeof(Parcel) * slots);
	n = prepay(s, tenant, pack(candidates, bulk, parcels, slots));
	if (n > 0)
		claimed = claim_parcels(s, tenant->serverid, parcels, n);
	call_pay_back(s->budget, n - claimed);
	/* what is there and could not be claimed is tried when the queue is looked at */
	s->more = candidates != NIL && (claimed > 0 || n == 0);
}

/* ------------------------------------------------------------- a unit of a sender */

static bool
continues(const Delivery *delivery)
{
	return delivery->reads_config && call_error(delivery->call) == NULL;
}

static bool
is_ended(const Delivery *delivery, const Sender *s)
{
	return delivery->sender == s && delivery->ended && !continues(delivery);
}

/* Has anything ended that can be written down now? */
static bool
has_ended(Sender *s)
{
	dlist_iter	iter;

	if (s->write_after > GetCurrentTimestamp())
		return false;
	dlist_foreach(iter, &s->d->under_way)
	{
		if (is_ended(dlist_container(Delivery, node, iter.cur), s))
			return true;
	}
	return false;
}

/* What ended ones mean for their sender, before it claims others. */
static void
heed_ended(Sender *s)
{
	dlist_iter	iter;

	dlist_foreach(iter, &s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);
		Verdict		verdict;

		if (!is_ended(delivery, s) || delivery->heeded)
			continue;
		delivery->heeded = true;
		verdict = verdict_of_call(delivery);
		if (verdict == VERDICT_AGAIN || verdict == VERDICT_UNKNOWN)
			sender_failed(s, call_limited_us(delivery->call));
		else
			s->failures = 0;
	}
}

typedef struct Serving
{
	Sender	   *s;
	bool		notes;
	bool		claims;
} Serving;

static void
note_and_claim(void *arg)
{
	Serving    *serving = arg;
	dlist_iter	iter;

	dlist_foreach(iter, &serving->s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (serving->notes && is_ended(delivery, serving->s))
			note_delivery(delivery);
	}
	if (serving->claims)
		claim(serving->s);
}

static void
note_one(void *arg)
{
	note_delivery(arg);
}

/* It is written down what became of it. */
static void
close_noted(Delivery *delivery)
{
	Sender	   *s = delivery->sender;

	if (verdict_of_call(delivery) == VERDICT_UNKNOWN)
		s->queue.unknown = s->unread = true;
	s->write_failures = 0;
	/* what waited for it can go, and what goes back can be sent again */
	s->more = true;
	sender_none_is_full(s->d);
	delivery_close(delivery);
}

static void
close_all_noted(Sender *s)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (is_ended(delivery, s))
			close_noted(delivery);
	}
}

/* One that cannot be written down does not hold the others. */
static void
note_one_by_one(Sender *s)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &s->d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);
		ErrorData  *error;

		if (!is_ended(delivery, s))
			continue;
		error = unit_run(note_one, delivery);
		if (unit_ground() != UNIT_OK)
			return;
		if (error == NULL)
			close_noted(delivery);
		else
			sender_write_failed(s, error);
		/* a lock was waited for, and may be for the next */
		if (error != NULL && unit_error_passes(error))
			return;
	}
}

/* Deliveries that were made in a transaction that is undone. */
static void
drop_since(Deliveries *d, dlist_node *last)
{
	while (!dlist_is_empty(&d->under_way) && dlist_tail_node(&d->under_way) != last)
		delivery_close(dlist_container(Delivery, node, dlist_tail_node(&d->under_way)));
}

static dlist_node *
last_under_way(Deliveries *d)
{
	return dlist_is_empty(&d->under_way) ? NULL : dlist_tail_node(&d->under_way);
}

/* A unit that may make deliveries; without it there are none. */
static ErrorData *
run_claiming(Sender *s, UnitWork work, void *arg)
{
	dlist_node *last = last_under_way(s->d);
	ErrorData  *error = unit_run(work, arg);

	if (error != NULL && unit_ground() == UNIT_OK)
		drop_since(s->d, last);
	return error;
}

/*
 * Notes and claims share a unit, for the sake of the commits.  Where that fails,
 * each is tried by itself: what cannot be written down does not keep others from
 * being sent, and is no trouble of theirs.
 */
void
delivery_serve(Sender *s)
{
	Serving		serving = {s, has_ended(s), false};
	ErrorData  *error;

	heed_ended(s);
	serving.claims = sender_claims_now(s);
	if (!serving.claims && !serving.notes)
		return;
	error = run_claiming(s, note_and_claim, &serving);
	if (unit_ground() != UNIT_OK)
		return;
	if (error == NULL)
	{
		if (serving.notes)
			close_all_noted(s);
		return;
	}
	if (serving.notes)
	{
		note_one_by_one(s);
		if (!serving.claims || unit_ground() != UNIT_OK)
			return;
		serving.notes = false;
		error = run_claiming(s, note_and_claim, &serving);
	}
	if (error != NULL && unit_ground() == UNIT_OK)
		sender_cannot_send(s, error);
}

/* --------------------------------------------------------- configurations, merged */

typedef struct Trouble
{
	Delivery   *delivery;
	int			sqlstate;
	const char *message;
} Trouble;

/* A page that is no configuration may be one the next time. */
static void
fail_merge(void *arg)
{
	Trouble    *t = arg;
	ActionOutcome outcome = {0};

	outcome.settled = t->sqlstate != ERRCODE_PROTOCOL_VIOLATION;
	outcome.state = outcome.settled ? "failed" : "queued";
	outcome.error = t->message;
	outcome.error_code = t->sqlstate;
	action_note(linitial(t->delivery->actions), "sending", &outcome);
}

static void
end_merge(Delivery *delivery, const ErrorData *error)
{
	Sender	   *s = delivery->sender;
	Trouble		t = {delivery, error->sqlerrcode, error->message};
	ErrorData  *again = unit_run(fail_merge, &t);

	if (again != NULL)
	{
		sender_write_failed(s, again);
		return;
	}
	if (error->sqlerrcode == ERRCODE_PROTOCOL_VIOLATION)
		sender_failed(s, 0);
	s->more = true;
	sender_none_is_full(s->d);
	delivery_close(delivery);
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

		if (!delivery->ended || !continues(delivery) ||
			delivery->sender->write_after > GetCurrentTimestamp())
			continue;
		error = unit_run(put_merged, delivery);
		if (unit_ground() != UNIT_OK)
			return;
		if (error != NULL && unit_error_passes(error))
			sender_write_failed(delivery->sender, error);
		else if (error != NULL)
			end_merge(delivery, error);
	}
}

void
delivery_give_up(Deliveries *d)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (!delivery->ended)
			delivery_close(delivery);
	}
	sender_none_is_full(d);
}
