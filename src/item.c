/*-------------------------------------------------------------------------
 *
 * item.c
 *	  A status item of the tenant: JSON to a C struct.
 *
 * The shapes that tenants are known to send are known here and nowhere else.
 * Whatever has another type than expected is treated as absent: the raw text
 * keeps it, and one odd member must not cost the row.  Only what would make
 * the row impossible to store is a problem of the item.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "item.h"
#include "lib/stringinfo.h"
#include "person.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

/*
 * Ids have 32 to 36 characters.  What is indexed must fit into a third of an
 * index page, beside the server's name; this leaves room for any conversion.
 */
#define ITEM_MAX_INDEXED 256

/*
 * Distinct names and messages kept of a list: finding equal ones is quadratic,
 * and an item of 16 MB must not hold a backend.
 */
#define ITEM_MAX_TEXTS 1000

/* First size of a list of texts. */
#define ITEM_FIRST_TEXTS 8

/* The farthest zones are 14 hours away; PostgreSQL too takes up to 15. */
#define ITEM_MAX_OFFSET_HOURS 15

/* ISO 8601 allows any precision; nanoseconds are the finest clock known. */
#define ITEM_MAX_FRACTION_DIGITS 9
#define NSECS_PER_USEC 1000


/*
 * Dates
 */

/* Exactly "n" digits; steps over them. */
static bool
read_digits(const char **p, int n, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++)
	{
		char		c = (*p)[i];

		if (c < '0' || c > '9')
			return false;
		*value = *value * 10 + (c - '0');
	}
	*p += n;
	return true;
}

static bool
read_char(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

/* yyyy-mm-dd as days since 2000-01-01. */
static bool
read_date(const char **p, int *days)
{
	int			year;
	int			month;
	int			day;

	if (!read_digits(p, 4, &year) || !read_char(p, '-') ||
		!read_digits(p, 2, &month) || !read_char(p, '-') ||
		!read_digits(p, 2, &day))
		return false;
	if (year < 1 || month < 1 || month > MONTHS_PER_YEAR ||
		day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	*days = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
	return true;
}

/* .f to .fffffffff, rounded to microseconds; 1000000 is possible. */
static bool
read_fraction(const char **p, int *usecs)
{
	int			nsecs = 0;
	int			ndigits = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++)
	{
		if (++ndigits > ITEM_MAX_FRACTION_DIGITS)
			return false;
		nsecs = nsecs * 10 + (**p - '0');
	}
	if (ndigits == 0)
		return false;
	for (; ndigits < ITEM_MAX_FRACTION_DIGITS; ndigits++)
		nsecs *= 10;
	*usecs = (nsecs + NSECS_PER_USEC / 2) / NSECS_PER_USEC;
	return true;
}

/* hh:mm, hh:mm:ss or hh:mm:ss.f as microseconds of the day. */
static bool
read_time_of_day(const char **p, int64 *usecs)
{
	int			hour;
	int			minute;
	int			second = 0;
	int			fraction = 0;

	if (!read_digits(p, 2, &hour) || !read_char(p, ':') ||
		!read_digits(p, 2, &minute))
		return false;
	if (read_char(p, ':'))
	{
		if (!read_digits(p, 2, &second))
			return false;
		if (read_char(p, '.') && !read_fraction(p, &fraction))
			return false;
	}

	/* 60 is a leap second: the next minute, as for PostgreSQL */
	if (hour > HOURS_PER_DAY || minute >= MINS_PER_HOUR ||
		second > SECS_PER_MINUTE)
		return false;
	*usecs = ((hour * MINS_PER_HOUR + minute) * SECS_PER_MINUTE + second) *
		USECS_PER_SEC + fraction;
	return hour < HOURS_PER_DAY || *usecs == USECS_PER_DAY;
}

/* Z, +hh:mm, +hhmm, +hh or nothing (UTC), to the end of the text. */
static bool
read_zone(const char *p, int64 *usecs)
{
	int			sign = (*p == '-') ? -1 : 1;
	int			hour = 0;
	int			minute = 0;

	if (*p == 'Z' || *p == 'z')
		p++;
	else if (*p == '+' || *p == '-')
	{
		p++;
		if (!read_digits(&p, 2, &hour))
			return false;
		if ((read_char(&p, ':') || *p != '\0') && !read_digits(&p, 2, &minute))
			return false;
	}
	if (hour > ITEM_MAX_OFFSET_HOURS || minute >= MINS_PER_HOUR)
		return false;
	*usecs = sign * (hour * MINS_PER_HOUR + minute) * SECS_PER_MINUTE *
		USECS_PER_SEC;
	return *p == '\0';
}

/*
 * Not PostgreSQL's own reader: that one depends on DateStyle and TimeZone,
 * knows words like "tomorrow", and raises.
 */
TimestampTz
item_parse_time(const char *text)
{
	const char *p = text;
	int			days;
	int64		time = 0;
	int64		offset = 0;

	if (text == NULL || !read_date(&p, &days))
		return ITEM_NO_TIME;
	if (*p != '\0')
	{
		if (*p != 'T' && *p != 't' && *p != ' ')
			return ITEM_NO_TIME;
		p++;
		if (!read_time_of_day(&p, &time) || !read_zone(p, &offset))
			return ITEM_NO_TIME;
	}
	return days * USECS_PER_DAY + time - offset;
}


/*
 * Scalars
 */

/* An id: text, or a number made text. */
static const char *
get_id(const JsonValue *v, const char *key, MemoryContext cxt)
{
	const char *id = json_get_string(v, key);
	int64		number;
	char		buf[MAXINT8LEN + 1];

	if (id != NULL || !json_get_int64(v, key, &number))
		return id;
	snprintf(buf, sizeof(buf), INT64_FORMAT, number);
	return MemoryContextStrdup(cxt, buf);
}

/* The same, where an empty one is none. */
static const char *
get_own_id(const JsonValue *v, const char *key, MemoryContext cxt)
{
	const char *id = get_id(v, key, cxt);

	return id != NULL && id[0] != '\0' ? id : NULL;
}

static TimestampTz
get_time(const JsonValue *v, const char *key)
{
	return item_parse_time(json_get_string(v, key));
}

/* A comment: text, or an object that has it as its "comment". */
static const char *
comment_text(const JsonValue *v)
{
	return json_is_object(v) ? json_get_string(v, "comment") : json_string(v);
}

/* An object as JSON text. */
static const char *
get_object_text(const JsonValue *v, const char *key, MemoryContext cxt)
{
	const JsonValue *member = json_get(v, key);
	MemoryContext old;
	const char *text;

	if (!json_is_object(member))
		return NULL;
	old = MemoryContextSwitchTo(cxt);
	text = json_print(member);
	MemoryContextSwitchTo(old);
	return text;
}

/*
 * For a while in 2024 references were arrays: then the first.  What is empty is
 * absent, or the views would take it for somebody.
 */
static void
get_ref(const JsonValue *v, const char *key, MemoryContext cxt, ItemRef *ref)
{
	const JsonValue *member = json_get(v, key);

	if (json_is_array(member))
		member = json_first(member);
	ref->type = json_get_string(member, "type");
	ref->id = get_own_id(member, "id", cxt);
	ref->name = json_get_string(member, "name");
	ref->name = person_name(ref);
}


/*
 * Lists of texts
 */

typedef struct TextList
{
	MemoryContext cxt;
	const char **texts;
	int			n;
	int			nalloc;
} TextList;

static bool
list_has(const TextList *list, const char *text)
{
	for (int i = 0; i < list->n; i++)
	{
		if (strcmp(list->texts[i], text) == 0)
			return true;
	}
	return false;
}

/* Append unless it is absent or there already. */
static void
list_add(TextList *list, const char *text)
{
	if (text == NULL || list->n == ITEM_MAX_TEXTS || list_has(list, text))
		return;
	if (list->n == list->nalloc)
	{
		list->nalloc = Max(ITEM_FIRST_TEXTS, list->nalloc * 2);
		if (list->texts == NULL)
			list->texts = MemoryContextAlloc(list->cxt,
											 list->nalloc * sizeof(char *));
		else
			list->texts = repalloc(list->texts, list->nalloc * sizeof(char *));
	}
	list->texts[list->n++] = text;
}

/* The distinct strings that the elements of an array have under a key. */
static void
list_members(TextList *list, const JsonValue *array, const char *key)
{
	for (const JsonValue *v = json_first(array); v != NULL; v = json_next(v))
		list_add(list, json_get_string(v, key));
}

static const char *
list_join(const TextList *list, const char *separator)
{
	StringInfoData buf;
	MemoryContext old;

	if (list->n == 0)
		return NULL;
	if (list->n == 1)
		return list->texts[0];

	old = MemoryContextSwitchTo(list->cxt);
	initStringInfo(&buf);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < list->n; i++)
	{
		if (i > 0)
			appendStringInfoString(&buf, separator);
		appendStringInfoString(&buf, list->texts[i]);
	}
	return buf.data;
}


/*
 * Error messages
 *
 * Each message comes in several locales: an inner list holds one message, one
 * entry a locale.  An approval has a flat list, in which the entries of one
 * locale are the messages.
 */

static bool
is_english(const JsonValue *message)
{
	const char *locale = json_get_string(message, "locale");

	return locale != NULL && pg_strncasecmp(locale, "en", 2) == 0;
}

/* The entry to show of an array: the first in English, else the first. */
static const JsonValue *
preferred_message(const JsonValue *array)
{
	const JsonValue *first = NULL;

	for (const JsonValue *v = json_first(array); v != NULL; v = json_next(v))
	{
		if (json_get_string(v, "text") == NULL)
			continue;
		if (is_english(v))
			return v;
		if (first == NULL)
			first = v;
	}
	return first;
}

static bool
same_locale(const JsonValue *a, const JsonValue *b)
{
	const char *locale_a = json_get_string(a, "locale");
	const char *locale_b = json_get_string(b, "locale");

	if (locale_a == NULL || locale_b == NULL)
		return locale_a == locale_b;
	return strcmp(locale_a, locale_b) == 0;
}

/* The messages of v[key], distinct, joined. */
static const char *
get_errors(const JsonValue *v, const char *key, MemoryContext cxt)
{
	TextList	list = {.cxt = cxt};
	const JsonValue *messages = json_get(v, key);
	const JsonValue *preferred;

	if (json_is_string(messages))
		return json_string(messages);
	if (!json_is_array(messages))
		return NULL;

	preferred = preferred_message(messages);
	for (const JsonValue *m = json_first(messages); m != NULL; m = json_next(m))
	{
		if (json_is_array(m))
		{
			const JsonValue *chosen = preferred_message(m);

			list_add(&list, chosen != NULL ? json_get_string(chosen, "text") :
					 json_string(json_first(m)));
		}
		else if (json_is_object(m))
		{
			if (same_locale(m, preferred))
				list_add(&list, json_get_string(m, "text"));
		}
		else
			list_add(&list, json_string(m));
	}
	return list_join(&list, "; ");
}


/*
 * Parts of an item
 */

/* When an approver's comment was written, as far as it says so. */
static TimestampTz
comment_time(const JsonValue *comment)
{
	TimestampTz time = get_time(comment, "modified");

	if (time == ITEM_NO_TIME)
		time = get_time(comment, "created");
	if (time == ITEM_NO_TIME)
		time = get_time(comment, "date");
	return time;
}

/* Undocumented but seen: approverComments[]; the newest, else the last. */
static const char *
newest_comment(const JsonValue *comments)
{
	const char *newest = NULL;
	TimestampTz newest_time = ITEM_NO_TIME;

	if (!json_is_array(comments))
		return comment_text(comments);
	for (const JsonValue *c = json_first(comments); c != NULL; c = json_next(c))
	{
		const char *text = comment_text(c);
		TimestampTz time = comment_time(c);

		if (text != NULL && time >= newest_time)
		{
			newest = text;
			newest_time = time;
		}
	}
	return newest;
}

static void
decode_approval(const JsonValue *v, MemoryContext cxt, ItemApproval *approval)
{
	approval->approval_id = get_id(v, "approvalId", cxt);
	approval->status = json_get_string(v, "status");
	approval->scheme = json_get_string(v, "scheme");
	approval->forwarded = json_get_bool(v, "forwarded");
	get_ref(v, "originalOwner", cxt, &approval->original_owner);
	get_ref(v, "currentOwner", cxt, &approval->current_owner);
	get_ref(v, "reviewedBy", cxt, &approval->reviewed_by);
	person_lend(&approval->current_owner, &approval->original_owner);
	person_lend(&approval->original_owner, &approval->current_owner);
	person_lend(&approval->reviewed_by, &approval->current_owner);
	person_lend(&approval->reviewed_by, &approval->original_owner);
	approval->comment = comment_text(json_get(v, "comment"));
	if (approval->comment == NULL)
		approval->comment = newest_comment(json_get(v, "approverComments"));
	approval->modified = get_time(v, "modified");
	approval->remove_date = get_time(v, "removeDate");
	approval->timeout_config = get_object_text(v, "timeoutConfig", cxt);
	approval->error_text = get_errors(v, "errorMessages", cxt);
}

static void
decode_phase(const JsonValue *v, ItemPhase *phase)
{
	phase->name = json_get_string(v, "name");
	phase->state = json_get_string(v, "state");
	phase->result = json_get_string(v, "result");
	phase->started = get_time(v, "started");
	phase->finished = get_time(v, "finished");
	phase->phase_reference = json_get_string(v, "phaseReference");
}

static void
decode_work_item(const JsonValue *v, MemoryContext cxt, ItemWorkItem *work)
{
	work->status = json_get_string(v, "status");
	work->forwarded = json_get_bool(v, "forwarded");
	get_ref(v, "originalOwner", cxt, &work->original_owner);
	get_ref(v, "currentOwner", cxt, &work->current_owner);
	person_lend(&work->current_owner, &work->original_owner);
	person_lend(&work->original_owner, &work->current_owner);
	work->modified = get_time(v, "modified");
}

/* Room for each element of an array, NULL where there is none. */
static void *
alloc_elements(const JsonValue *array, size_t size, MemoryContext cxt)
{
	int			n = json_is_array(array) ? json_size(array) : 0;

	if (n == 0)
		return NULL;
	return MemoryContextAllocExtended(cxt, n * size, MCXT_ALLOC_HUGE);
}

/*
 * Elements that are no objects are left out.  approvalIds[] belong to the
 * approvals by position, but only where both have the same length: then there
 * is no telling otherwise.
 */
static void
decode_approvals(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	const JsonValue *details = json_get(root, "approvalDetails");
	const JsonValue *ids = json_get(root, "approvalIds");
	const JsonValue *id = NULL;

	item->approvals = alloc_elements(details, sizeof(ItemApproval), cxt);
	if (item->approvals == NULL)
		return;
	if (json_is_array(ids) && json_size(ids) == json_size(details))
		id = json_first(ids);
	for (const JsonValue *v = json_first(details); v != NULL; v = json_next(v))
	{
		if (json_is_object(v))
		{
			ItemApproval *approval = &item->approvals[item->napprovals++];

			decode_approval(v, cxt, approval);
			if (approval->approval_id == NULL)
				approval->approval_id = json_string(id);
		}
		id = json_next(id);
	}
}

static void
decode_phases(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	const JsonValue *phases = json_get(root, "accessRequestPhases");

	item->phases = alloc_elements(phases, sizeof(ItemPhase), cxt);
	if (item->phases == NULL)
		return;
	for (const JsonValue *v = json_first(phases); v != NULL; v = json_next(v))
	{
		if (json_is_object(v))
			decode_phase(v, &item->phases[item->nphases++]);
	}
}

static void
decode_work_items(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	const JsonValue *works = json_get(root, "manualWorkItemDetails");

	item->work_items = alloc_elements(works, sizeof(ItemWorkItem), cxt);
	if (item->work_items == NULL)
		return;
	for (const JsonValue *v = json_first(works); v != NULL; v = json_next(v))
	{
		if (json_is_object(v))
			decode_work_item(v, cxt, &item->work_items[item->nwork_items++]);
	}
}

/* A check that has a result may have found nothing: then no names, not -1. */
static void
decode_sod(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	TextList	names = {.cxt = cxt};
	const JsonValue *context = json_get(root, "sodViolationContext");
	const JsonValue *result = json_get(context, "violationCheckResult");

	item->sod_state = json_get_string(context, "state");
	item->nsod_policies = -1;
	if (!json_is_object(result))
		return;
	list_members(&names, json_get(result, "violatedPolicies"), "name");
	item->sod_policies = names.texts;
	item->nsod_policies = names.n;
}

static void
decode_sources(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	TextList	names = {.cxt = cxt};
	const JsonValue *accounts = json_get(root, "requestedAccounts");

	item->nsource_names = -1;
	if (!json_is_array(accounts))
		return;
	list_members(&names, accounts, "sourceName");
	item->source_names = names.texts;
	item->nsource_names = names.n;
}

static void
decode_cancel(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	const JsonValue *details = json_get(root, "cancelledRequestDetails");

	item->cancel_comment = comment_text(details);
	item->cancelled_at = get_time(details, "modified");
	get_ref(details, "owner", cxt, &item->cancelled_by);
}

static void
decode_scalars(const JsonValue *root, MemoryContext cxt, StatusItem *item)
{
	item->account_activity_item_id = get_own_id(root, ITEM_ID_KEY, cxt);
	item->access_request_id = get_id(root, "accessRequestId", cxt);
	item->item_id = get_id(root, "id", cxt);
	item->item_name = json_get_string(root, "name");
	item->item_type = json_get_string(root, "type");
	item->request_type = json_get_string(root, "requestType");
	item->state = json_get_string(root, "state");
	item->requester_comment = comment_text(json_get(root, "requesterComment"));
	item->created = get_time(root, "created");
	item->modified = get_time(root, "modified");
	item->start_date = get_time(root, "startDate");
	item->remove_date = get_time(root, "removeDate");
	item->cancelable = json_get_bool(root, "cancelable");
	item->description = json_get_string(root, "description");
	item->privilege_level = json_get_string(root, "privilegeLevel");
}

static bool
too_long(const char *text)
{
	return text != NULL && strlen(text) > ITEM_MAX_INDEXED;
}

/*
 * Why the row could not be stored, or NULL.  An index would refuse a long
 * value, with an error that fails the whole page.
 */
static const char *
item_problem(const StatusItem *item)
{
	if (too_long(item->account_activity_item_id))
		return ITEM_ID_KEY " is too long";
	if (too_long(item->access_request_id))
		return "accessRequestId is too long";
	if (too_long(item->requested_for.id))
		return "the id of requestedFor is too long";
	if (too_long(item->state))
		return "state is too long";
	for (int i = 0; i < item->napprovals; i++)
	{
		if (too_long(item->approvals[i].current_owner.id))
			return "the id of an approval's currentOwner is too long";
	}
	return NULL;
}

bool
item_decode(const char *text, size_t len, MemoryContext cxt, StatusItem *item,
			const char **problem)
{
	if (!item_decode_shown(text, len, cxt, item, problem))
		return false;
	if (item->account_activity_item_id == NULL)
		*problem = "has no " ITEM_ID_KEY;
	return *problem == NULL;
}

bool
item_decode_shown(const char *text, size_t len, MemoryContext cxt, StatusItem *item,
				  const char **problem)
{
	const JsonValue *root = json_parse(text, len, cxt, problem);

	memset(item, 0, sizeof(*item));
	if (root == NULL)
		return false;
	if (!json_is_object(root))
	{
		*problem = "not a JSON object";
		return false;
	}

	decode_scalars(root, cxt, item);
	get_ref(root, "requester", cxt, &item->requester);
	get_ref(root, "requestedFor", cxt, &item->requested_for);
	decode_cancel(root, cxt, item);
	person_lend(&item->requester, &item->requested_for);
	person_lend(&item->requested_for, &item->requester);
	person_lend(&item->cancelled_by, &item->requester);
	person_lend(&item->cancelled_by, &item->requested_for);
	decode_sod(root, cxt, item);
	decode_sources(root, cxt, item);
	item->error_text = get_errors(root, "errorMessages", cxt);
	item->client_metadata = get_object_text(root, "clientMetadata", cxt);
	decode_approvals(root, cxt, item);
	decode_phases(root, cxt, item);
	decode_work_items(root, cxt, item);

	*problem = item_problem(item);
	return *problem == NULL;
}
