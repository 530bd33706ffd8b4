/*
 * seed.c
 *
 * Random rows as rich as those of a live tenant.  Everything follows from
 * the seed, so that the same seed and number of rows give the same bytes;
 * the text is written directly, because a million rows should take seconds.
 * No expression draws two random numbers: compilers differ in which comes
 * first.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPAN_DAYS 730

/* What is decided about a row before its text is written. */
typedef struct Draft
{
	uint64_t	rng;
	JsonStyle	style;
	const char *state;
	bool		waiting;		/* for an approval */
	bool		manual;			/* for a manual work item */
	char		id[37];
	char		request_id[37];
	bool		no_request_id;
	bool		no_created;
	bool		revoke;
	int			requester;
	int			requested_for;
	int			wanted;
	int			approvers;
	int64_t		created;
	DateStyle	created_style;
	int64_t		modified;		/* when it last moved, null or not */
	bool		null_modified;
	DateStyle	modified_style;
	uint32_t	assigned[2];
	bool		moving;
} Draft;

static const char *const comments[] = {
	"Needed for the quarter-end close", "Ersatz für Kollegin während Elternzeit", "per ticket INC-48213",
	"ok", "Temporary; remove after the audit = 30 days", "プロジェクト開始のため", "As discussed \"in person\" 🙂",
	"path C:\\temp\\x & 100% sure", "Please see </script> in the attached policy", "Approved by phone\nsee notes"
};

static const char *const schemes[] = {
	"MANAGER", "APP_OWNER", "SOURCE_OWNER", "ROLE_OWNER", "ACCESS_PROFILE_OWNER",
	"ENTITLEMENT_OWNER", "GOVERNANCE_GROUP", "WORKFLOW"
};

#define COUNT(list) ((uint32_t) (sizeof(list) / sizeof((list)[0])))

static const char *
pick_comment(Draft *d)
{
	return comments[random_below(&d->rng, COUNT(comments))];
}

static int
any_person(Draft *d)
{
	return 2 + (int) random_below(&d->rng, (uint32_t) people_count() - 2);
}

/* A moment between the row's creation and its last move. */
static int64_t
between(Draft *d, uint32_t part, uint32_t parts)
{
	int64_t		span = (d->modified - d->created) / (parts ? parts : 1);

	return d->created + span * part + (int64_t) (span / 1000 * random_below(&d->rng, 900));
}

static void
write_id(Draft *d, char out[37], bool dashed)
{
	uint64_t	hi = random_next(&d->rng),
				lo = random_next(&d->rng);
	const char *digits = options.natural && lo % 4 == 0 ? "0123456789ABCDEF" : "0123456789abcdef";

	for (int i = 0; i < 32; i++)
	{
		uint64_t	half = i < 16 ? hi : lo;

		if (dashed && (i == 8 || i == 12 || i == 16 || i == 20))
			*out++ = '-';
		*out++ = digits[half >> (60 - 4 * (i % 16)) & 15];
	}
	*out = '\0';
}

static void
put_key(Text *t, const char *key)
{
	text_add(t, "\"", 1);
	text_puts(t, key);
	text_add(t, "\":", 2);
}

static void
put_owner(Text *t, const Draft *d, const char *key, int n, bool group)
{
	const Person *p = person(n);

	put_key(t, key);
	text_puts(t, group ? "{\"type\":\"GOVERNANCE_GROUP\",\"id\":\"" : "{\"type\":\"IDENTITY\",\"id\":\"");
	text_puts(t, p->id);
	text_puts(t, "\",\"name\":");
	text_json(t, p->name, d->style);
	text_add(t, "}", 1);
}

static void
put_text(Text *t, const Draft *d, const char *key, const char *value)
{
	put_key(t, key);
	text_json_or_null(t, value, d->style);
}

static void
put_date(Text *t, const char *key, int64_t usecs, DateStyle style)
{
	put_key(t, key);
	text_date(t, usecs, style);
}

static DateStyle
odd_style(Draft *d, DateStyle usual)
{
	uint32_t	r = random_below(&d->rng, 1000);

	return r < 15 ? DATE_NO_ZONE : r < 30 ? DATE_NO_SECONDS : usual;
}

/* A date that is spelt oddly now and then. */
static void
put_odd_date(Text *t, Draft *d, const char *key, int64_t usecs, DateStyle usual)
{
	put_date(t, key, usecs, odd_style(d, usual));
}

/* One message in two locales, as the tenant repeats them. */
static void
put_messages(Text *t, const Draft *d, const char *text, const char *translated)
{
	text_puts(t, "[{\"locale\":\"en-US\",\"localeOrigin\":\"DEFAULT\",\"text\":");
	text_json(t, text, d->style);
	text_puts(t, "},{\"locale\":\"de-DE\",\"localeOrigin\":\"REQUEST\",\"text\":");
	text_json(t, translated, d->style);
	text_puts(t, "}]");
}

static void
put_forward_history(Text *t, Draft *d, int64_t when)
{
	text_puts(t, "\"forwardHistory\":[{");
	put_text(t, d, "oldApproverName", person(any_person(d))->name);
	text_puts(t, ",");
	put_text(t, d, "newApproverName", person(any_person(d))->name);
	text_puts(t, ",");
	put_text(t, d, "comment", random_chance(&d->rng, 500) ? pick_comment(d) : NULL);
	text_puts(t, ",");
	put_odd_date(t, d, "modified", when, DATE_MS);
	text_puts(t, ",");
	put_text(t, d, "forwarderName", random_chance(&d->rng, 300) ? person(any_person(d))->name : NULL);
	text_printf(t, ",\"reassignmentType\":\"%s\"}]",
				random_chance(&d->rng, 500) ? "MANUAL_REASSIGNMENT" : "AUTO_ESCALATION");
}

static void
put_approval(Text *t, Draft *d, uint32_t n, const char *status, const char *approval_id)
{
	bool		forwarded = random_chance(&d->rng, 150);
	bool		pending = strcmp(status, "PENDING") == 0;
	bool		group = random_chance(&d->rng, 120);
	int			original = any_person(d);
	int			current = forwarded ? any_person(d) : original;
	int64_t		when = between(d, n, (uint32_t) d->approvers + 1);

	text_printf(t, "%s{\"approvalId\":\"%s\",\"forwarded\":%s,", n ? "," : "", approval_id,
				forwarded ? "true" : "false");
	put_owner(t, d, "originalOwner", original, group);
	text_puts(t, ",");
	put_owner(t, d, "currentOwner", current, group && !forwarded);
	text_puts(t, ",");
	put_odd_date(t, d, "modified", pending && random_chance(&d->rng, 500) ? NO_TIME : when, DATE_MS);
	text_printf(t, ",\"status\":\"%s\",\"scheme\":\"%s\",\"errorMessages\":", status,
				schemes[random_below(&d->rng, COUNT(schemes))]);
	if (random_chance(&d->rng, 15))
		put_messages(t, d, "The approver has left.", "Der Genehmiger ist ausgeschieden.");
	else
		text_puts(t, "null");
	text_puts(t, ",");
	put_text(t, d, "comment", !pending && random_chance(&d->rng, 400) ? pick_comment(d) : NULL);
	text_puts(t, ",\"removeDate\":null,\"reviewedBy\":");
	if (pending)
		text_puts(t, "null");
	else
	{
		text_printf(t, "{\"type\":\"IDENTITY\",\"id\":\"%s\",\"name\":", person(current)->id);
		text_json(t, person(current)->name, d->style);
		text_puts(t, "}");
	}
	text_puts(t, ",\"approverComments\":[],");
	if (forwarded)
		put_forward_history(t, d, when);
	else
		text_puts(t, "\"forwardHistory\":[]");
	if (random_chance(&d->rng, 200))
		text_puts(t, ",\"timeoutConfig\":{\"daysUntilEscalation\":5,\"daysBetweenReminders\":2,"
				  "\"maxReminders\":3,\"enabled\":true}");
	text_puts(t, "}");
	if (pending)
		d->assigned[d->assigned[0] ? 1 : 0] = person(current)->number;
}

static const char *
approval_status(Draft *d, int n)
{
	bool		last = n == d->approvers - 1;

	if (!last)
		return "APPROVED";
	if (d->waiting)
		return "PENDING";
	if (strcmp(d->state, "REJECTED") == 0)
		return "REJECTED";
	if (strcmp(d->state, "CANCELLED") == 0)
		return "CANCELLED";
	if (strcmp(d->state, "TERMINATED") == 0)
		return random_chance(&d->rng, 500) ? "EXPIRED" : "ARCHIVED";
	return "APPROVED";
}

static void
put_approvals(Text *t, Draft *d)
{
	char		ids[4][37];

	text_puts(t, "\"approvalDetails\":[");
	for (int i = 0; i < d->approvers; i++)
	{
		write_id(d, ids[i], false);
		put_approval(t, d, (uint32_t) i, approval_status(d, i), ids[i]);
	}
	text_puts(t, "],\"approvalIds\":");
	if (d->approvers == 0 && random_chance(&d->rng, 500))
		text_puts(t, "null");
	else
	{
		text_puts(t, "[");
		for (int i = 0; i < d->approvers; i++)
			text_printf(t, "%s\"%s\"", i ? "," : "", ids[i]);
		text_puts(t, "]");
	}
}

static void
put_manual_work(Text *t, Draft *d)
{
	bool		open = d->manual;
	bool		forwarded = random_chance(&d->rng, 200);

	text_puts(t, "\"manualWorkItemDetails\":");
	if (!open && !random_chance(&d->rng, 60))
	{
		text_puts(t, random_chance(&d->rng, 500) ? "null" : "[]");
		return;
	}
	text_printf(t, "[{\"forwarded\":%s,", forwarded ? "true" : "false");
	put_owner(t, d, "originalOwner", any_person(d), forwarded);
	text_puts(t, ",");
	put_owner(t, d, "currentOwner", any_person(d), false);
	text_puts(t, ",");
	put_odd_date(t, d, "modified", between(d, 2, 3), DATE_MS);
	text_printf(t, ",\"status\":\"%s\",", open ? "PENDING" : "APPROVED");
	if (forwarded)
		put_forward_history(t, d, between(d, 2, 3));
	else
		text_puts(t, "\"forwardHistory\":null");
	text_puts(t, "}]");
}

static void
put_phase(Text *t, Draft *d, const char *name, int64_t started, int64_t finished,
		  const char *state, const char *result, const char *reference)
{
	if (started != NO_TIME)
		started += random_below(&d->rng, 999);
	if (finished != NO_TIME)
		finished += random_below(&d->rng, 999);
	text_puts(t, "{");
	put_odd_date(t, d, "started", started, DATE_US);
	text_puts(t, ",");
	put_odd_date(t, d, "finished", finished, DATE_US);
	text_printf(t, ",\"name\":\"%s\",\"state\":\"%s\",\"result\":", name, state);
	text_json_or_null(t, result, JSON_PLAIN);
	text_puts(t, ",\"phaseReference\":");
	text_json_or_null(t, reference, JSON_PLAIN);
	text_puts(t, "}");
}

static void
put_phases(Text *t, Draft *d)
{
	bool		open = d->waiting || d->manual || strncmp(d->state, "PROVISIONING_V", 14) == 0;
	bool		refused = strcmp(d->state, "REJECTED") == 0 || strcmp(d->state, "CANCELLED") == 0 ||
		strcmp(d->state, "TERMINATED") == 0;
	bool		failed = strstr(d->state, "FAILED") || strcmp(d->state, "ERROR") == 0;

	text_puts(t, "\"accessRequestPhases\":");
	if (random_chance(&d->rng, 20))
	{
		text_puts(t, "null");
		return;
	}
	text_puts(t, "[");
	/* what is refused or ended in its approval ends with it */
	put_phase(t, d, "APPROVAL_PHASE", d->created,
			  d->waiting ? NO_TIME : refused ? d->modified : between(d, 1, 3),
			  d->waiting ? "EXECUTING" : refused ? "CANCELLED" : "COMPLETED",
			  d->waiting ? NULL : refused ? "FAILED" : "SUCCESSFUL", "approvalDetails");
	text_puts(t, ",");
	if (d->waiting || refused)
		put_phase(t, d, "PROVISIONING_PHASE", NO_TIME, NO_TIME,
				  d->waiting ? "PENDING" : "NOT_EXECUTED", NULL, NULL);
	else
		put_phase(t, d, "PROVISIONING_PHASE", between(d, 2, 3), open ? NO_TIME : d->modified,
				  open ? "EXECUTING" : "COMPLETED", open ? NULL : failed ? "FAILED" : "SUCCESSFUL",
				  d->manual ? "manualWorkItemDetails" : NULL);
	if (random_chance(&d->rng, 200))
	{
		text_puts(t, ",");
		put_phase(t, d, "SOD_POLICY_CHECK_PHASE", d->created, d->created + 1500000, "COMPLETED",
				  "SUCCESSFUL", "sodViolationContext");
	}
	text_puts(t, "]");
}

static void
put_sod(Text *t, Draft *d)
{
	char		uuid[37],
				policy[37];

	text_puts(t, "\"sodViolationContext\":");
	if (!random_chance(&d->rng, 100))
	{
		text_puts(t, "null");
		return;
	}
	write_id(d, uuid, true);
	write_id(d, policy, true);
	text_printf(t, "{\"state\":\"%s\",\"uuid\":\"%s\",\"violationCheckResult\":{\"message\":null,"
				"\"clientMetadata\":null,\"violationContexts\":[],\"violatedPolicies\":",
				random_chance(&d->rng, 900) ? "SUCCESS" : "ERROR", uuid);
	if (random_chance(&d->rng, 300))
		text_puts(t, "[]}}");
	else
	{
		text_printf(t, "[{\"type\":\"SOD_POLICY\",\"id\":\"%s\",\"name\":", policy);
		text_json(t, random_chance(&d->rng, 500) ? "Pay & approve = never" : "Trennung \"vier Augen\"", d->style);
		text_puts(t, "}]}}");
	}
}

static void
put_errors(Text *t, Draft *d)
{
	text_puts(t, "\"errorMessages\":");
	if (strstr(d->state, "FAILED") || strcmp(d->state, "ERROR") == 0 || random_chance(&d->rng, 5))
	{
		text_puts(t, "[");
		put_messages(t, d, "The connector \"AD\" answered: password policy = 0x80072035 <unwilling>.",
					 "Der Konnektor \"AD\" meldet: Kennwortrichtlinie = 0x80072035 <unwilling>.");
		if (random_chance(&d->rng, 250))
		{
			text_puts(t, ",");
			put_messages(t, d, "Gave up after 3 attempts.", "Nach 3 Versuchen aufgegeben.");
		}
		text_puts(t, "]");
	}
	else
		text_puts(t, random_chance(&d->rng, 500) ? "null" : "[]");
}

static void
put_cancelled(Text *t, Draft *d)
{
	text_puts(t, "\"cancelledRequestDetails\":");
	if (strcmp(d->state, "CANCELLED") != 0)
	{
		text_puts(t, "null");
		return;
	}
	text_puts(t, "{");
	put_text(t, d, "comment", pick_comment(d));
	text_puts(t, ",");
	put_owner(t, d, "owner", random_chance(&d->rng, 400) ? ADMIN_PERSON : any_person(d), false);
	text_puts(t, ",");
	put_odd_date(t, d, "modified", d->modified, DATE_MS);
	text_puts(t, "}");
}

static void
put_accounts(Text *t, Draft *d)
{
	const Thing *w = thing(d->wanted);
	int			n = random_chance(&d->rng, 700) ? 1 : 2;

	text_puts(t, "\"requestedAccounts\":");
	if (random_chance(&d->rng, 550))
	{
		text_puts(t, random_chance(&d->rng, 700) ? "null" : "[]");
		return;
	}
	text_puts(t, "[");
	for (int i = 0; i < n; i++)
	{
		char		uuid[37];

		write_id(d, uuid, true);
		text_printf(t, "%s{", i ? "," : "");
		put_text(t, d, "name", person(d->requested_for)->name);
		text_puts(t, ",\"type\":\"ACCOUNT\",\"accountUuid\":");
		if (random_chance(&d->rng, 700))
			text_printf(t, "\"{%s}\"", uuid);
		else
			text_puts(t, "null");
		text_puts(t, ",\"accountId\":");
		text_json(t, "CN=user,OU=People,DC=corp,DC=example", d->style);
		text_puts(t, ",");
		put_text(t, d, "sourceName", w->source);
		text_puts(t, "}");
	}
	text_puts(t, "]");
}

static void
put_client_metadata(Text *t, Draft *d)
{
	uint32_t	r = random_below(&d->rng, 100);

	text_puts(t, "\"clientMetadata\":");
	if (r < 80)
		text_puts(t, "null");
	else if (r < 85)
		text_puts(t, "{}");
	else
	{
		text_puts(t, "{");
		put_text(t, d, "requestedAppName", "portal = \"self service\"");
		text_printf(t, ",\"ticket\":\"CHG%07u\"}", random_below(&d->rng, 10000000));
	}
}

/* Keys of newer versions, and one that nobody has documented. */
static void
put_newer_keys(Text *t, Draft *d)
{
	text_printf(t, ",\"identityType\":\"%s\",\"form\":null",
				random_chance(&d->rng, 950) ? "HUMAN" : "MACHINE");
	text_printf(t, ",\"jitDetails\":%s,\"reauthorizationRequired\":false",
				random_chance(&d->rng, 30) ? "{\"maxDurationMinutes\":240,\"activated\":null}" : "null");
	text_printf(t, ",\"accessRequestContext\":null,\"privileged\":%s",
				random_chance(&d->rng, 100) ? "true" : "false");
	if (random_chance(&d->rng, 200))
		text_printf(t, ",\"x_futureKey\":{\"score\":%u.5,\"big\":2843118224,\"list\":[1,[2,null],{\"a\":true}]}",
					random_below(&d->rng, 100));
}

static void
put_requester_comment(Text *t, Draft *d)
{
	text_puts(t, "\"requesterComment\":");
	if (random_chance(&d->rng, 400))
	{
		text_puts(t, "null");
		return;
	}
	text_puts(t, "{");
	put_text(t, d, "comment", random_chance(&d->rng, 950) ? pick_comment(d) : NULL);
	text_puts(t, ",");
	put_date(t, "created", d->created, DATE_MS);
	text_puts(t, ",");
	put_owner(t, d, "author", d->requester, false);
	text_puts(t, "}");
}

static void
put_ends(Text *t, Draft *d)
{
	text_puts(t, "\"description\":");
	if (random_chance(&d->rng, 500))
		text_puts(t, "null");
	else
		text_json(t, "Grants what the name says, and reading the department's calendar; "
				  "owner = see wiki <internal>.", d->style);
	text_puts(t, ",");
	put_odd_date(t, d, "startDate", random_chance(&d->rng, 30) ? d->created + 20 * USECS_PER_DAY : NO_TIME,
				 DATE_MS);
	text_puts(t, ",");
	put_odd_date(t, d, "removeDate", random_chance(&d->rng, 120) ? d->created + 90 * USECS_PER_DAY : NO_TIME,
				 DATE_MS);
	text_printf(t, ",\"cancelable\":%s,\"accessRequestId\":", d->waiting ? "true" : "false");
	text_json_or_null(t, d->no_request_id ? NULL : d->request_id, JSON_PLAIN);
	text_puts(t, ",");
	put_client_metadata(t, d);
	text_puts(t, ",");
	put_accounts(t, d);
	text_puts(t, ",\"privilegeLevel\":");
	text_puts(t, random_chance(&d->rng, 600) ? "null" : random_chance(&d->rng, 500) ? "\"HIGH\"" : "\"Low\"");
	put_newer_keys(t, d);
}

/* requestedFor was an array for a while in 2024. */
static void
put_requested_for(Text *t, Draft *d)
{
	bool		array = random_chance(&d->rng, 5);
	const Person *p = person(d->requested_for);

	text_printf(t, "\"requestedFor\":%s{\"type\":\"IDENTITY\",\"id\":\"%s\",\"name\":",
				array ? "[" : "", p->id);
	text_json(t, p->name, d->style);
	text_puts(t, array ? "}]," : "},");
}

static void
put_row(Text *t, Draft *d, bool no_item_id)
{
	const Thing *w = thing(d->wanted);

	text_puts(t, "{\"id\":");
	text_json_or_null(t, no_item_id ? NULL : w->id, JSON_PLAIN);
	text_puts(t, ",");
	put_text(t, d, "name", w->name);
	text_printf(t, ",\"type\":\"%s\",", w->type);
	put_cancelled(t, d);
	text_puts(t, ",");
	put_errors(t, d);
	text_printf(t, ",\"state\":\"%s\",", d->state);
	put_approvals(t, d);
	text_puts(t, ",");
	put_manual_work(t, d);
	text_printf(t, ",\"accountActivityItemId\":\"%s\",\"requestType\":\"%s\",", d->id,
				d->revoke ? "REVOKE_ACCESS" : "GRANT_ACCESS");
	put_date(t, "modified", d->null_modified ? NO_TIME : d->modified, d->modified_style);
	text_puts(t, ",");
	put_date(t, "created", d->no_created ? NO_TIME : d->created, d->created_style);
	text_puts(t, ",");
	put_owner(t, d, "requester", d->requester, false);
	text_puts(t, ",");
	put_requested_for(t, d);
	put_requester_comment(t, d);
	text_puts(t, ",");
	put_sod(t, d);
	text_puts(t, ",\"provisioningDetails\":");
	text_puts(t, random_chance(&d->rng, 500) ? "null" : "{\"orderedSubPhaseReferences\":\"manualWorkItemDetails\"}");
	text_puts(t, ",\"preApprovalTriggerDetails\":");
	if (random_chance(&d->rng, 60))
	{
		text_puts(t, "{");
		put_text(t, d, "comment", pick_comment(d));
		text_puts(t, ",\"reviewer\":\"Workflow\",\"decision\":\"APPROVED\"}");
	}
	else
		text_puts(t, "null");
	text_puts(t, ",");
	put_phases(t, d);
	text_puts(t, ",");
	put_ends(t, d);
	text_puts(t, "}");
}

/* The state, and what hangs on it. */
static void
draw_state(Draft *d)
{
	static const struct
	{
		const char *state;
		uint32_t	upto;
	}			closed[] = {
		{"REQUEST_COMPLETED", 760}, {"CANCELLED", 840}, {"REJECTED", 895}, {"TERMINATED", 935},
		{"PROVISIONING_FAILED", 965}, {"NOT_ALL_ITEMS_PROVISIONED", 983}, {"ERROR", 1000}
	};
	uint32_t	r = random_below(&d->rng, 1000);
	int			i = 0;

	d->waiting = d->manual = false;
	if (d->moving || random_below(&d->rng, 100000) < (uint32_t) (options.open_percent * 1000))
	{
		d->state = !d->moving && r < 180 ? "PROVISIONING_VERIFICATION_PENDING" : "EXECUTING";
		d->waiting = d->moving || (r >= 180 && r < 750);
		d->manual = r >= 750 && !d->moving;
	}
	else
	{
		while (r >= closed[i].upto)
			i++;
		d->state = closed[i].state;
	}
	r = random_below(&d->rng, 100);
	d->approvers = r < 20 ? 0 : r < 77 ? 1 : r < 96 ? 2 : 3;
	if (d->approvers == 0 && d->waiting)
		d->approvers = 1;
}

/* What the rows of one request have in common. */
static void
draw_request(Draft *d, long index)
{
	d->requester = any_person(d);
	d->requested_for = random_chance(&d->rng, 400) ? d->requester : any_person(d);
	if (index % 97 == 3)
		d->requester = d->requested_for = SELF_PERSON;
	else if (index % 89 == 4 && index < 2000)
		d->requested_for = ADMIN_PERSON;
	else if (index % 83 == 5)
		d->requester = ADMIN_PERSON;
	d->revoke = d->requester != d->requested_for && random_chance(&d->rng, 80);
	write_id(d, d->request_id, random_chance(&d->rng, 500));
	d->created_style = random_chance(&d->rng, 10) ? odd_style(d, DATE_NO_ZONE) :
		random_chance(&d->rng, 10) ? DATE_US : DATE_MS;
}

/* Makes the Item of a draft whose text has been written. */
static Item *
draft_item(Draft *d, const Text *t, bool no_item_id)
{
	Item	   *item = item_new(t->data, t->len);

	item->id = xstrdup(d->id);
	item->request_id = d->no_request_id ? NULL : xstrdup(d->request_id);
	item->created = d->no_created ? NO_TIME : d->created;
	item->modified = d->null_modified ? NO_TIME : d->modified;
	item->shuffle = random_next(&d->rng);
	item->name = thing(d->wanted)->name_number;
	item->wanted = no_item_id ? 0 : thing(d->wanted)->number;
	item->requester = person(d->requester)->number;
	item->requested_for = person(d->requested_for)->number;
	item->assigned[0] = d->assigned[0];
	item->assigned[1] = d->assigned[1];
	item->state = strcmp(d->state, "EXECUTING") == 0 ? STATE_EXECUTING :
		strncmp(d->state, "PROVISIONING_V", 14) == 0 ? STATE_VERIFYING : STATE_OTHER;
	item->revoke = d->revoke;
	return item;
}

/*
 * From its creation to its last change.  Where the rows go up to now, what would
 * end later is still being provisioned, or waits for its approval, which takes the
 * first third.
 */
static int64_t
lifetime(Draft *d)
{
	int64_t		seconds = random_below(&d->rng, 20 * 86400);
	int64_t		most = (tenant_now() - d->created) / USECS_PER_SEC;

	if (d->moving)
		return 0;
	if (options.up_to_now && seconds > most)
	{
		d->state = "EXECUTING";
		d->manual = seconds / 3 < most;
		d->waiting = !d->manual;
		seconds = d->manual ? most : 0;
		d->approvers = d->approvers ? d->approvers : 1;
	}
	return seconds * USECS_PER_SEC;
}

static Item *
draw_row(Draft *d, Text *t, bool single)
{
	bool		no_item_id;

	d->style = random_chance(&d->rng, 300) ? JSON_HTML_SAFE :
		random_chance(&d->rng, 40) ? JSON_ASCII : JSON_PLAIN;
	write_id(d, d->id, random_chance(&d->rng, 300));
	draw_state(d);
	d->wanted = (int) random_below(&d->rng, (uint32_t) things_count());
	d->modified_style = random_chance(&d->rng, 10) ? odd_style(d, DATE_US) : DATE_MS;
	d->modified = d->created + lifetime(d);
	d->modified += random_below(&d->rng, 1000) * 1000;
	d->modified = date_round(d->modified, d->modified_style);
	d->null_modified = random_chance(&d->rng, 70);
	d->no_request_id = single && random_chance(&d->rng, 40);
	d->no_created = !d->moving && random_chance(&d->rng, 2);
	no_item_id = random_chance(&d->rng, 20);
	d->assigned[0] = d->assigned[1] = 0;
	text_reset(t);
	put_row(t, d, no_item_id);
	return draft_item(d, t, no_item_id);
}

/* Adds a request of 1 to 3 rows, at most `left`; returns how many. */
static int
seed_request(uint64_t rng, long index, int64_t created, long left, bool moving, Text *t)
{
	Draft		d = {.rng = rng, .moving = moving};
	int			n;

	draw_request(&d, index);
	if (created == NO_TIME)
	{
		created = options.reference - (int64_t) random_below(&d.rng, SPAN_DAYS * 86400u) * USECS_PER_SEC;
		created -= (int64_t) random_below(&d.rng, 1000) * 1000;
	}
	d.created = date_round(created, d.created_style);
	n = random_chance(&d.rng, 700) ? 1 : 2 + (int) random_below(&d.rng, 2);
	if (n > left)
		n = (int) left;
	for (int i = 0; i < n; i++)
	{
		Item	   *item = draw_row(&d, t, n == 1);

		tenant_add(item);
		if (moving)
			life_move(item);
	}
	return n;
}

/* The rows that the tenant starts with. */
void
seed_rows(long rows)
{
	uint64_t	rng = options.seed;
	Text		t = {0};

	tenant.rng = options.seed ^ UINT64_C(0x6c61746572);
	for (long done = 0, index = 0; done < rows; index++)
		done += seed_request(random_next(&rng), index, NO_TIME, rows - done, false, &t);
	text_free(&t);
}

/* Rows that come up now. */
void
seed_new(long rows, bool moving)
{
	Text		t = {0};

	if (rows > 500)
		orders_stale();
	for (long done = 0; done < rows;)
		done += seed_request(random_next(&tenant.rng), 1, tenant_now(), rows - done, moving, &t);
	text_free(&t);
}
