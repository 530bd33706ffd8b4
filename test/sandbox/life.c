/*
 * life.c
 *
 * What happens to requests as time goes by: a created one comes up in the
 * list, two approvers approve it in turn, it is provisioned and done; a
 * closed one ends a moment after the call.  Events wait in a heap and are
 * carried out when the next request arrives, dated when they were due.
 *
 * The id of the requested item may choose another course: reject-, fail- and
 * wait- (stays at its first approver); held- is dealt with in create.c.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

typedef enum EventKind
{
	EVENT_APPEAR,
	EVENT_STEP,
	EVENT_CLOSE
} EventKind;

typedef struct Event
{
	int64_t		due;			/* move_clock_ms */
	EventKind	kind;
	Item	   *hidden;			/* appear */
	char	   *id;				/* step: of the row; close: of the request */
	bool		completed;		/* close */
} Event;

static Event *heap;
static size_t nheap;
static size_t heap_cap;

#define NOMINAL_STEP_MS 3000	/* where steps are the admin's */

/* ---- the heap ---- */

static void
push(Event e)
{
	size_t		i = nheap;

	if (nheap == heap_cap)
	{
		heap_cap = heap_cap ? heap_cap * 2 : 64;
		heap = xrealloc(heap, heap_cap * sizeof(Event));
	}
	nheap++;
	while (i > 0 && heap[(i - 1) / 2].due > e.due)
	{
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = e;
}

static Event
pop(void)
{
	Event		top = heap[0];
	Event		last = heap[--nheap];
	size_t		i = 0;

	for (;;)
	{
		size_t		child = 2 * i + 1;

		if (child >= nheap)
			break;
		if (child + 1 < nheap && heap[child + 1].due < heap[child].due)
			child++;
		if (heap[child].due >= last.due)
			break;
		heap[i] = heap[child];
		i = child;
	}
	if (nheap > 0)
		heap[i] = last;
	return top;
}

static int64_t
step_ms(void)
{
	return options.pace_ms > 0 ? options.pace_ms : NOMINAL_STEP_MS;
}

static void
plan_step(const char *id, int64_t from)
{
	push((Event) {.due = from + step_ms(),.kind = EVENT_STEP,.id = xstrdup(id)});
}

/* ---- steps of a request ---- */

static bool
wanted_begins(const Item *item, const char *prefix)
{
	return strncmp(interned(item->wanted), prefix, strlen(prefix)) == 0;
}

static cJSON *
pending_approval(const cJSON *json)
{
	cJSON	   *approval;

	cJSON_ArrayForEach(approval, cJSON_GetObjectItemCaseSensitive(json, "approvalDetails"))
	{
		const char *status = json_text(approval, "status");

		if (status && strcmp(status, "PENDING") == 0)
			return approval;
	}
	return NULL;
}

/* Sets all approvals that are still open to a status. */
static void
end_approvals(cJSON *json, const char *status, int64_t when)
{
	cJSON	   *approval;

	while ((approval = pending_approval(json)) != NULL)
	{
		json_set(approval, "status", cJSON_CreateString(status));
		json_touch(approval, "modified", when);
	}
}

static void
add_second_approver(cJSON *json)
{
	cJSON	   *list = cJSON_GetObjectItemCaseSensitive(json, "approvalDetails");
	cJSON	   *ids = cJSON_GetObjectItemCaseSensitive(json, "approvalIds");
	cJSON	   *approval = cJSON_Duplicate(cJSON_GetArrayItem(list, 0), 1);
	const char *owner = person(2 + (int) random_below(&tenant.rng, 200))->id;
	char		id[33];

	new_id(id);
	json_set(approval, "approvalId", cJSON_CreateString(id));
	json_set(approval, "status", cJSON_CreateString("PENDING"));
	json_set(approval, "scheme", cJSON_CreateString("SOURCE_OWNER"));
	json_set(approval, "originalOwner", json_identity(owner));
	json_set(approval, "currentOwner", json_identity(owner));
	json_set(approval, "modified", cJSON_CreateNull());
	json_set(approval, "reviewedBy", cJSON_CreateNull());
	json_set(approval, "comment", cJSON_CreateNull());
	cJSON_AddItemToArray(list, approval);
	if (cJSON_IsArray(ids))
		cJSON_AddItemToArray(ids, cJSON_CreateString(id));
}

static void
finish(cJSON *json, const char *state, int64_t when)
{
	json_set(json, "state", cJSON_CreateString(state));
	json_set(json, "cancelable", cJSON_CreateFalse());
	json_touch(json, "modified", when);
}

/* An approver decides; true if something is still to come. */
static bool
decide(const Item *item, cJSON *json, cJSON *approval, int64_t when)
{
	bool		reject = wanted_begins(item, "reject-");
	const cJSON *owner = cJSON_GetObjectItemCaseSensitive(approval, "currentOwner");

	json_set(approval, "status", cJSON_CreateString(reject ? "REJECTED" : "APPROVED"));
	json_set(approval, "reviewedBy", cJSON_Duplicate(owner, 1));
	json_set(approval, "comment", cJSON_CreateString(reject ? "No." : "Fine with me."));
	json_touch(approval, "modified", when);
	json_touch(json, "modified", when);
	if (reject)
	{
		json_phase(json, "APPROVAL_PHASE", "COMPLETED", when);
		finish(json, "REJECTED", when);
		return false;
	}
	if (pending_approval(json))
		return true;
	if (cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "approvalDetails")) < 2)
	{
		add_second_approver(json);
		return true;
	}
	json_phase(json, "APPROVAL_PHASE", "COMPLETED", when);
	json_phase(json, "PROVISIONING_PHASE", "EXECUTING", when);
	json_set(json, "cancelable", cJSON_CreateFalse());
	return true;
}

static void
provision(const Item *item, cJSON *json, int64_t when)
{
	bool		failed = wanted_begins(item, "fail-");

	json_phase(json, "PROVISIONING_PHASE", "COMPLETED", when);
	finish(json, failed ? "PROVISIONING_FAILED" : "REQUEST_COMPLETED", when);
	if (failed)
		json_set(json, "errorMessages",
				 cJSON_Parse("[[{\"locale\":\"en-US\",\"localeOrigin\":\"DEFAULT\",\"text\":"
							 "\"The target system refused the change.\"},"
							 "{\"locale\":\"de-DE\",\"localeOrigin\":\"REQUEST\",\"text\":"
							 "\"Das Zielsystem hat die \\u00c4nderung abgelehnt.\"}]]"));
}

static void
take_step(const Event *e, int64_t when)
{
	Item	   *item = tenant_find(e->id);
	cJSON	   *json,
			   *approval;
	bool		more = false;

	if (item == NULL || item->state != STATE_EXECUTING || (json = item_open(item)) == NULL)
		return;
	approval = pending_approval(json);
	if (approval)
		more = decide(item, json, approval, when);
	else
		provision(item, json, when);
	item_save(item, json);
	if (more)
		plan_step(e->id, e->due);
}

/* ---- appearing and closing ---- */

static void
appear(const Event *e)
{
	Item	   *item = e->hidden;

	tenant_add(item);
	if (!wanted_begins(item, "wait-"))
		plan_step(item->id, e->due);
}

static void
close_request(const Event *e, int64_t when)
{
	Item	  **rows;
	size_t		n = tenant_request(e->id, &rows);

	for (size_t i = 0; i < n; i++)
	{
		cJSON	   *json;

		if (rows[i]->state == STATE_OTHER || (json = item_open(rows[i])) == NULL)
			continue;
		end_approvals(json, "CANCELLED", when);
		json_phase(json, "APPROVAL_PHASE", e->completed ? "COMPLETED" : "CANCELLED", when);
		json_phase(json, "PROVISIONING_PHASE", e->completed ? "COMPLETED" : "CANCELLED", when);
		finish(json, e->completed ? "REQUEST_COMPLETED" : "TERMINATED", when);
		item_save(rows[i], json);
	}
	free(rows);
}

/* Carries out whatever is due. */
void
life_run(void)
{
	int64_t		clock = move_clock_ms();

	while (nheap > 0 && heap[0].due <= clock)
	{
		Event		e = pop();
		int64_t		when = tenant_now() - (clock - e.due) * 1000;

		if (e.kind == EVENT_APPEAR)
			appear(&e);
		else if (e.kind == EVENT_STEP)
			take_step(&e, when);
		else
			close_request(&e, when);
		free(e.id);
	}
}

/* How many events are still to come. */
int
life_pending(void)
{
	return (int) nheap;
}

/* A new row that the list shows only after a while. */
void
life_start(Item *item, int64_t delay_ms)
{
	push((Event) {.due = move_clock_ms() + delay_ms,.kind = EVENT_APPEAR,.hidden = item});
}

/* A row that is in the list and now begins to move. */
void
life_move(Item *item)
{
	plan_step(item->id, move_clock_ms() + random_below(&tenant.rng, (uint32_t) step_ms()));
}

void
life_close(const char *request_id, bool completed, int64_t delay_ms)
{
	push((Event) {.due = move_clock_ms() + delay_ms,.kind = EVENT_CLOSE,
				  .id = xstrdup(request_id),.completed = completed});
}

/* An equal request that the list does not show yet. */
Item *
life_find_hidden(uint32_t requested_for, uint32_t wanted, bool revoke)
{
	for (size_t i = 0; i < nheap; i++)
	{
		Item	   *item = heap[i].hidden;

		if (item && item->requested_for == requested_for && item->wanted == wanted &&
			item->revoke == revoke)
			return item;
	}
	return NULL;
}

/* Has the request rows that the list does not show yet? */
bool
life_is_hidden(const char *request_id)
{
	for (size_t i = 0; i < nheap; i++)
		if (heap[i].hidden && heap[i].hidden->request_id &&
			strcmp(heap[i].hidden->request_id, request_id) == 0)
			return true;
	return false;
}

/* Cancels a row that still waits for an approval; false for any other. */
bool
item_cancel(Item *item, const char *comment, const char *owner)
{
	cJSON	   *json = item->state == STATE_EXECUTING ? item_open(item) : NULL;
	cJSON	   *details;
	int64_t		now = tenant_now();

	if (json == NULL)
		return false;
	if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "cancelable")))
	{
		cJSON_Delete(json);
		return false;
	}
	end_approvals(json, "CANCELLED", now);
	json_phase(json, "APPROVAL_PHASE", "CANCELLED", now);
	json_phase(json, "PROVISIONING_PHASE", "NOT_EXECUTED", now);
	details = cJSON_CreateObject();
	cJSON_AddStringToObject(details, "comment", comment);
	cJSON_AddItemToObject(details, "owner", json_identity(owner));
	json_touch(details, "modified", now);
	json_set(json, "cancelledRequestDetails", details);
	finish(json, "CANCELLED", now);
	item_save(item, json);
	return true;
}
