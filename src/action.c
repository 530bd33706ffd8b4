/*-------------------------------------------------------------------------
 *
 * action.c
 *	  The rows of table action: the queue of calls that belong to a
 *	  transaction.
 *
 * An action is written in its caller's transaction and from its commit on it is
 * the worker's.  What must never happen is that one is sent twice: it is marked
 * as being sent, and that is on disk, before it leaves; whoever finds it so
 * afterwards does not know whether it was, and looks.
 *
 * Everything about an action is settled under its row's lock, and each change
 * names the state, and the try, that it goes by.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "accessreq.h"
#include "action.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "compat.h"
#include "foreign/foreign.h"
#include "identity.h"
#include "job.h"
#include "lib/stringinfo.h"
#include "json.h"
#include "mark.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "row.h"
#include "sql.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "writer.h"

/* Who listens hears of each that is settled. */
#define NOTIFY_CHANNEL "accessreq_action"

/* An action that stands for a new one may be settled in between: so often. */
#define ENQUEUE_TRIES 10

const char *const action_kinds[ACTION_KINDS] = {
	[ACTION_CREATE] = "create",
	[ACTION_CANCEL] = "cancel",
	[ACTION_CLOSE] = "close",
	[ACTION_MERGE_CONFIG] = "merge_config",
};

/* When a queued one is to be sent; action_due_idx has the same words. */
#define DUE "coalesce(not_before, enqueued_at)"

static void
enter(WriterState *state)
{
	writer_enter_for(state, "action");
	sql_go_by_indexes();
}

static Datum
int8_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, 8, FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Ids that the tenant made: what the server's encoding lacks becomes "?". */
static Datum
text_array(const char *const *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(api_error_convert(ids[i], strlen(ids[i])));
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static char *
utf8(char *text)
{
	return text ? pg_server_to_any(text, strlen(text), PG_UTF8) : NULL;
}

/* ------------------------------------------------------------------- enqueueing */

/* Its id, or 0 where another stands in the way. */
static int64
insert_action(const NewAction *a)
{
	static SPIPlanPtr plan;
	SqlArgs		args = {0};

	sql_add_text(&args, a->server);
	sql_add_text(&args, action_kinds[a->kind]);
	sql_add(&args, JSONBOID, a->request, false);
	sql_add_text(&args, GetUserNameFromId(a->owner, false));
	sql_add_oid(&args, a->owner);
	sql_add_text(&args, GetUserNameFromId(GetSessionUserId(), false));
	sql_add_text(&args, identity_origin());
	sql_add(&args, TEXTARRAYOID, a->ids, a->ids == (Datum) 0);
	sql_add_time(&args, a->not_before);
	sql_add_text(&args, a->dedupe_key);
	sql_add(&args, UUIDOID, a->client_token, a->client_token == (Datum) 0);
	sql_add_oid(&args, a->server_oid);
	if (sql_run_kept(&plan, "INSERT INTO accessreq.action (server, kind, request, owner, owner_oid,"
					 " enqueued_by, origin, access_request_ids, not_before, dedupe_key, client_token,"
					 " enqueued_at, server_oid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
					 " pg_catalog.clock_timestamp(), $12) ON CONFLICT DO NOTHING RETURNING id",
					 &args, SPI_OK_INSERT_RETURNING) == 0)
		return 0;
	return sql_int(0, 1);
}

/* The owner's action with this key, or 0. */
static int64
find_by_key(const NewAction *a)
{
	SqlArgs		args = {0};

	if (a->dedupe_key == NULL)
		return 0;
	sql_add_oid(&args, a->server_oid);
	sql_add_oid(&args, a->owner);
	sql_add_text(&args, a->dedupe_key);
	sql_add_text(&args, identity_origin());
	if (sql_run("SELECT id FROM accessreq.action WHERE server_oid = $1 AND owner_oid = $2"
				" AND dedupe_key = $3 AND origin = $4 AND state <> ALL (ARRAY['failed', 'cancelled']::text[])",
				&args, SPI_OK_SELECT) == 0)
		return 0;
	return sql_int(0, 1);
}

/* The cancel of the same access request that is not settled, or 0. */
static int64
find_cancel(const NewAction *a)
{
	SqlArgs		args = {0};

	if (a->kind != ACTION_CANCEL)
		return 0;
	sql_add_oid(&args, a->server_oid);
	sql_add(&args, TEXTARRAYOID, a->ids, false);
	sql_add_oid(&args, a->owner);
	sql_add_text(&args, identity_origin());
	if (sql_run("SELECT id, owner_oid = $3 FROM accessreq.action WHERE server_oid = $1 AND origin = $4"
				" AND access_request_ids[1] = ($2)[1] AND kind = 'cancel' AND settled_at IS NULL",
				&args, SPI_OK_SELECT) == 0)
		return 0;
	if (!sql_true(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("another role has enqueued a cancel of this access request already"),
				 errhint("An access request takes one at a time. Let one role enqueue all cancels, or take this error for \"it is being cancelled\".")));
	return sql_int(0, 1);
}

/* The id of the one that stands in the way; 0: it is gone again. */
static int64
find_other(const NewAction *action)
{
	WriterState state;
	int64		id;

	enter(&state);
	id = find_by_key(action);
	if (id == 0)
		id = find_cancel(action);
	writer_leave(&state);
	return id;
}

int64
action_enqueue(const NewAction *action)
{
	int64		id = 0;

	for (int i = 0; id == 0 && i < ENQUEUE_TRIES; i++)
	{
		WriterState state;

		writer_enter_for(&state, "action");
		id = insert_action(action);
		writer_leave(&state);
		if (id == 0)
			id = find_other(action);
	}
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("Another transaction enqueued the same."),
				 errhint("Try the transaction again.")));
	return id;
}

/* ----------------------------------------------------------- one, by its number */

static void
notify(int64 id, const char *server, const char *action_state)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"id\":" INT64_FORMAT ",\"state\":\"%s\",\"server\":", id, action_state);
	json_append_string(&buf, server);
	appendStringInfoChar(&buf, '}');
	Async_Notify(NOTIFY_CHANNEL, buf.data);
}

typedef struct ActionRow
{
	bool		found;
	char	   *owner;
	Oid			owner_role;		/* InvalidOid: it is gone */
	char	   *server;
	Oid			server_now;		/* InvalidOid: it is gone */
	char	   *state;
	bool		settled;
} ActionRow;

/*
 * Who may not see it is told what he is told of one that is not there.  The rule
 * of policy action_of_own_roles.
 */
static void
check_is_ours(int64 id, const ActionRow *row, bool acts)
{
	if (row->found && superuser())
		return;
	if (OidIsValid(row->owner_role) && (acts ? compat_may_act_as(GetUserId(), row->owner_role) :
										is_member_of_role(GetUserId(), row->owner_role)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("action " INT64_FORMAT " does not exist", id),
			 superuser() ? 0 :
			 errdetail("Or it is another role's, of which role \"%s\" is no member.",
					   GetUserNameFromId(GetUserId(), false))));
}

/* With "lock" as for an update. */
static ActionRow
read_row(int64 id, bool lock)
{
	ActionRow	row = {0};
	SqlArgs		args = {0};

	sql_add_int8(&args, id);
	if (sql_run(lock ?
				"SELECT owner, owner_oid, origin, server, server_oid, state, settled_at IS NOT NULL"
				" FROM accessreq.action WHERE id = $1 FOR UPDATE" :
				"SELECT owner, owner_oid, origin, server, server_oid, state, settled_at IS NOT NULL"
				" FROM accessreq.action WHERE id = $1", &args, SPI_OK_SELECT) == 0)
		return row;
	row.found = true;
	row.owner = sql_text(0, 1);
	row.owner_role = identity_role(row.owner, (Oid) sql_int(0, 2), sql_text(0, 3));
	row.server = sql_text(0, 4);
	row.server_now = identity_server(row.server, (Oid) sql_int(0, 5), sql_text(0, 3));
	row.state = sql_text(0, 6);
	row.settled = sql_true(0, 7);
	return row;
}

/* Of a role of which the caller is a member; to act on it, one that he could be. */
static ActionRow
read_ours(int64 id, bool acts)
{
	WriterState state;
	ActionRow	row;

	writer_enter_to_read(&state);
	row = read_row(id, false);
	writer_leave(&state);
	check_is_ours(id, &row, acts);
	return row;
}

char *
action_state(int64 id, bool *settled)
{
	ActionRow	row = read_ours(id, false);

	*settled = row.settled;
	return row.state;
}

/* What is gone is no better for a second try. */
static void
check_has_ground(int64 id, const ActionRow *row)
{
	if (!OidIsValid(row->owner_role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist any more", row->owner),
				 errdetail("Action " INT64_FORMAT " was its, and is sent for nobody else.", id)));
	if (!OidIsValid(row->server_now))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist any more", row->server),
				 errhint("accessreq.rename_server() gives its actions to another server.")));
}

/* With the writer entered. */
static void
check_not_replaced(int64 id, Oid owner, Oid serverid)
{
	SqlArgs		args = {0};

	sql_add_int8(&args, id);
	sql_add_oid(&args, owner);
	sql_add_text(&args, identity_origin());
	sql_add_oid(&args, serverid);
	if (sql_run("SELECT b.id FROM accessreq.action a JOIN accessreq.action b ON b.server_oid = $4 AND b.origin = $3"
				" AND b.id <> a.id AND ((b.owner_oid = $2 AND b.dedupe_key = a.dedupe_key"
				" AND b.state <> ALL (ARRAY['failed', 'cancelled']::text[]))"
				" OR (a.kind = 'cancel' AND b.kind = 'cancel' AND b.settled_at IS NULL"
				" AND b.access_request_ids[1] = a.access_request_ids[1]))"
				" WHERE a.id = $1 LIMIT 1", &args, SPI_OK_SELECT) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("a newer action stands in the place of action " INT64_FORMAT, id),
				 errdetail("It has the same dedupe_key, or cancels the same access request.")));
}

void
action_retry(int64 id)
{
	WriterState state;
	ActionRow	row = read_ours(id, true);
	SqlArgs		args = {0};

	job_check_origin(row.server);
	enter(&state);
	row = read_row(id, true);
	if (row.found && strcmp(row.state, "failed") != 0 && strcmp(row.state, "unknown") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("action " INT64_FORMAT " is %s", id, row.state),
				 errhint("Only an action that failed or is unknown can be sent again.")));
	check_has_ground(id, &row);
	check_not_replaced(id, row.owner_role, row.server_now);
	sql_add_int8(&args, id);
	sql_add_oid(&args, row.owner_role);
	sql_add_text(&args, identity_origin());
	sql_add_oid(&args, row.server_now);
	/* one that comes in between raises 23505 here */
	(void) sql_run("UPDATE accessreq.action SET state = 'queued', settled_at = NULL, sent_at = NULL,"
				   " http_status = NULL, error = NULL, error_code = NULL, owner_oid = $2, origin = $3,"
				   " server_oid = $4 WHERE id = $1",
				   &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

bool
action_cancel(int64 id)
{
	WriterState state;
	ActionRow	row = read_ours(id, true);
	SqlArgs		args = {0};
	bool		cancelled;

	enter(&state);
	sql_add_int8(&args, id);
	cancelled = sql_run("UPDATE accessreq.action SET state = 'cancelled',"
						" settled_at = pg_catalog.clock_timestamp()"
						" WHERE id = $1 AND state = 'queued'", &args, SPI_OK_UPDATE) > 0;
	writer_leave(&state);
	if (cancelled)
		notify(id, row.server, "cancelled");
	return cancelled;
}

/* ------------------------------------------------------------------ the senders */

void
action_after_recovery(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};

	if (!job_take_timeline(server))
		return;
	enter(&state);
	sql_add_text(&args, server);
	sql_add_text(&args, unpack_sql_state(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN));
	sql_add_time(&args, GetCurrentTimestamp());
	(void) sql_run("UPDATE accessreq.action SET state = 'unknown', error_code = $2,"
				   " error = 'the database was promoted or recovered since: it may have been sent before'"
				   " WHERE server = $1 AND settled_at IS NULL AND state = 'queued' AND " DUE " <= $3",
				   &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/*
 * A skip scan: from one owner, and server by its OID, to the next, by the index,
 * however many actions each has.  Names of servers come from sync_job, where
 * enqueueing has put them.
 */
#define EACH_OWNER \
	"WITH RECURSIVE o (owner_oid, server_oid, owner) AS (" \
	"(SELECT a.owner_oid, a.server_oid, a.owner FROM accessreq.action a WHERE a.server = j.server AND a.origin = $1" \
	" AND a.settled_at IS NULL ORDER BY a.server, a.origin, a.owner_oid, a.server_oid LIMIT 1)" \
	" UNION ALL SELECT n.owner_oid, n.server_oid, n.owner FROM o CROSS JOIN LATERAL" \
	" (SELECT a.owner_oid, a.server_oid, a.owner FROM accessreq.action a WHERE a.server = j.server AND a.origin = $1" \
	" AND a.settled_at IS NULL AND (a.owner_oid, a.server_oid) > (o.owner_oid, o.server_oid)" \
	" ORDER BY a.server, a.origin, a.owner_oid, a.server_oid LIMIT 1) n) SELECT * FROM o"

#define OF_OWNER \
	" FROM accessreq.action a WHERE a.server = j.server AND a.origin = $1 AND a.owner_oid = o.owner_oid" \
	" AND a.server_oid = o.server_oid AND a.settled_at IS NULL AND a.state = "

#define MAY(role, function) \
	"pg_catalog.has_function_privilege(" role ", 'accessreq." function "', 'EXECUTE')"

#define CREATE_FUNCTION "enqueue_create(jsonb, timestamptz, text, name)"
#define CANCEL_FUNCTION "enqueue_cancel(text, text, timestamptz, text, name)"
#define CLOSE_FUNCTION "enqueue_close(text[], text, text, text, timestamptz, text, name)"
#define MERGE_FUNCTION "enqueue_merge_config(jsonb, timestamptz, text, name)"

#define MAY_ALL(role) \
	MAY(role, CREATE_FUNCTION) " AND " MAY(role, CANCEL_FUNCTION) " AND " \
	MAY(role, CLOSE_FUNCTION) " AND " MAY(role, MERGE_FUNCTION)

#define HAS_SERVER(oid) \
	"EXISTS (SELECT FROM pg_catalog.pg_foreign_server f WHERE f.oid = " oid ")"
#define HAS_OWNER(oid) \
	"EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = " oid ")"

/* Under the name that its rows have, or the one that the server has by now. */
#define IS_HELD(server, oid, here) \
	"EXISTS (SELECT FROM accessreq.sync_job h WHERE h.held_at IS NOT NULL" \
	" AND (h.server = " server " OR (h.server_oid = " oid " AND h.origin = " here ")))"

static ActionSender *
sender_from_row(uint64 row)
{
	ActionSender *s = palloc0(sizeof(ActionSender));

	s->server = pstrdup(sql_text(row, 1));
	s->owner = pstrdup(sql_text(row, 2));
	s->owner_oid = (Oid) sql_int(row, 3);
	s->exists = sql_true(row, 4);
	s->may_all = sql_true(row, 5);
	s->held = sql_true(row, 6);
	s->retry_after = sql_time(row, 7);
	s->due_at = sql_time(row, 8);
	if (s->due_at == DT_NOBEGIN)
		s->due_at = DT_NOEND;
	s->sending = sql_true(row, 9);
	s->unknown = sql_true(row, 10);
	s->server_oid = (Oid) sql_int(row, 11);
	return s;
}

List *
action_senders(void)
{
	static SPIPlanPtr plan;
	MemoryContext cxt = CurrentMemoryContext;
	List	   *senders = NIL;
	WriterState state;
	SqlArgs		args = {0};
	uint64		n;

	enter(&state);
	sql_add_text(&args, identity_origin());
	n = sql_run_kept(&plan, "SELECT j.server, coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r"
					 " WHERE r.oid = o.owner_oid)::text, o.owner), o.owner_oid,"
					 " " HAS_OWNER("o.owner_oid") " AND " HAS_SERVER("o.server_oid") ","
					 " " MAY_ALL("o.owner_oid") ", " IS_HELD("j.server", "o.server_oid", "$1") ","
					 /* another owner has another budget */
					 " CASE WHEN coalesce(j.owner_oid, j.retry_after_of) = o.owner_oid THEN j.retry_after END,"
					 " (SELECT " DUE OF_OWNER "'queued' ORDER BY a.server, a.origin, a.owner_oid, a.server_oid, a.state, " DUE
					 " LIMIT 1), EXISTS (SELECT" OF_OWNER "'sending'), EXISTS (SELECT" OF_OWNER "'unknown'),"
					 " o.server_oid"
					 " FROM accessreq.sync_job j CROSS JOIN LATERAL (" EACH_OWNER ") o"
					 " WHERE j.origin = $1", &args, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		senders = lappend(senders, sender_from_row(i));
		MemoryContextSwitchTo(old);
	}
	writer_leave(&state);
	return senders;
}

static void
add_sender(SqlArgs *args, const ActionSender *sender)
{
	sql_add_text(args, sender->server);
	sql_add_oid(args, sender->owner_oid);
	sql_add_oid(args, sender->server_oid);
	sql_add_text(args, identity_origin());
}

#define OF_SENDER "server = $1 AND origin = $4 AND owner_oid = $2 AND server_oid = $3 AND settled_at IS NULL"
#define IN_ORDER " ORDER BY server, origin, owner_oid, server_oid, state, " DUE ", id "

/* ------------------------------------------------------------------- claiming */

static ActionKind
kind_of(const char *name)
{
	for (int i = 0; i < ACTION_KINDS; i++)
	{
		if (strcmp(name, action_kinds[i]) == 0)
			return (ActionKind) i;
	}
	elog(ERROR, "unknown kind of action \"%s\"", name);
}

/*
 * Actions on the same access request keep their order, and changes of the
 * configuration theirs: one waits for those before it that are due, and for any
 * that is on its way or unknown, whosever they are.  (OFFSET 0 has the planner
 * look for the same requests first, by their index, whatever it thinks of the
 * table's size.)
 */
#define NONE_BEFORE_IT(others) \
	"NOT EXISTS (SELECT FROM (SELECT c.* FROM accessreq.action c WHERE " \
	others " OFFSET 0) b WHERE b.settled_at IS NULL AND b.server_oid = a.server_oid AND b.origin = a.origin AND b.id <> a.id" \
	" AND (b.state <> 'queued' OR (b.id < a.id AND coalesce(b.not_before, b.enqueued_at) <= $5)))"

/*
 * In the statement, so that it counts for each claim: holds, rights, the
 * timeline, and whose database it is.  Locked ones are left for later.
 */
#define CANDIDATES \
	"SELECT id, kind, CASE WHEN kind = 'cancel' THEN request ->> 'comment' END," \
	" http_status IS NOT NULL FROM accessreq.action a" \
	" WHERE " OF_SENDER " AND state = 'queued' AND " DUE " <= $5" \
	" AND NOT " IS_HELD("$1", "$3", "$4") \
	" AND EXISTS (SELECT FROM accessreq.sync_job j WHERE j.server = $1 AND coalesce(j.timeline, $6) = $6)" \
	" AND CASE kind WHEN 'create' THEN (SELECT " MAY("$2", CREATE_FUNCTION) ")" \
	" WHEN 'cancel' THEN (SELECT " MAY("$2", CANCEL_FUNCTION) ")" \
	" WHEN 'close' THEN (SELECT " MAY("$2", CLOSE_FUNCTION) ")" \
	" ELSE (SELECT " MAY("$2", MERGE_FUNCTION) ") END" \
	" AND (access_request_ids IS NULL OR " \
	NONE_BEFORE_IT("c.kind = ANY ('{cancel,close}') AND c.access_request_ids && a.access_request_ids") ")" \
	" AND (kind <> 'merge_config' OR " NONE_BEFORE_IT("c.kind = 'merge_config' AND c.settled_at IS NULL AND c.server_oid = a.server_oid") ")" \
	" AND ($8 IS NULL OR (kind = 'cancel' AND http_status IS NULL" \
	" AND request ->> 'comment' = ANY ($8) AND id <> ALL ($9)))" \
	IN_ORDER "LIMIT $7 FOR UPDATE OF a SKIP LOCKED"

/* "comments" and "ids" are null: all; else cancels with these, without those. */
static List *
read_candidates(const ActionSender *sender, int most, Datum comments, Datum ids)
{
	static SPIPlanPtr plan;
	MemoryContext cxt = CurrentMemoryContext;
	List	   *candidates = NIL;
	WriterState state;
	SqlArgs		args = {0};
	uint64		n;

	enter(&state);
	add_sender(&args, sender);
	sql_add_time(&args, GetCurrentTimestamp());
	sql_add_int4(&args, job_timeline_here());
	sql_add_int8(&args, most);
	sql_add(&args, TEXTARRAYOID, comments, comments == (Datum) 0);
	sql_add(&args, INT8ARRAYOID, ids, ids == (Datum) 0);
	n = sql_run_kept(&plan, CANDIDATES, &args, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		ActionCandidate *c = palloc0(sizeof(ActionCandidate));

		c->id = sql_int(i, 1);
		c->kind = kind_of(sql_text(i, 2));
		c->comment = sql_text(i, 3);
		if (c->comment != NULL)
			c->comment = pstrdup(c->comment);
		c->alone = sql_true(i, 4);
		candidates = lappend(candidates, c);
		MemoryContextSwitchTo(old);
	}
	writer_leave(&state);
	return candidates;
}

List *
action_candidates(const ActionSender *sender, int most)
{
	return read_candidates(sender, most, (Datum) 0, (Datum) 0);
}

List *
action_companions(const ActionSender *sender, List *candidates, int most)
{
	int			n = list_length(candidates);
	int64	   *ids = palloc(sizeof(int64) * n);
	Datum	   *comments = palloc(sizeof(Datum) * n);
	int			ncomments = 0;

	for (int i = 0; i < n; i++)
	{
		const ActionCandidate *c = list_nth(candidates, i);

		ids[i] = c->id;
		if (c->comment != NULL && !c->alone)
			comments[ncomments++] = CStringGetTextDatum(c->comment);
	}
	if (ncomments == 0)
		return NIL;
	return read_candidates(sender, most,
						   PointerGetDatum(construct_array(comments, ncomments, TEXTOID, -1, false,
														   TYPALIGN_INT)),
						   int8_array(ids, n));
}

/* Columns of an Action, in this order. */
#define ACTION_COLUMNS \
	"a.id, a.kind, a.attempts, a.request::text, a.client_token::text, a.sent_at, a.enqueued_at," \
	" a.access_request_ids"

static void
read_ids(Action *a, Datum array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	a->ids = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			a->ids[a->nids++] = pstrdup(utf8(TextDatumGetCString(elements[i])));
	}
}

/* The rows of the last result, as Actions in "cxt". */
static List *
read_actions(uint64 n, MemoryContext cxt)
{
	List	   *actions = NIL;
	MemoryContext old = MemoryContextSwitchTo(cxt);

	for (uint64 i = 0; i < n; i++)
	{
		Action	   *a = palloc0(sizeof(Action));
		char	   *token = sql_text(i, 5);
		bool		isnull;
		Datum		ids = sql_datum(i, 8, &isnull);

		a->id = sql_int(i, 1);
		a->kind = kind_of(sql_text(i, 2));
		a->attempts = (int) sql_int(i, 3);
		a->request = pstrdup(utf8(sql_text(i, 4)));
		a->client_token = token ? pstrdup(token) : NULL;
		a->sent_at = sql_time(i, 6);
		a->enqueued_at = sql_time(i, 7);
		if (!isnull)
			read_ids(a, ids);
		actions = lappend(actions, a);
	}
	MemoryContextSwitchTo(old);
	return actions;
}

Action *
action_copy(const Action *action)
{
	Action	   *copy = palloc(sizeof(Action));

	*copy = *action;
	copy->request = pstrdup(action->request);
	copy->client_token = action->client_token ? pstrdup(action->client_token) : NULL;
	copy->ids = palloc(sizeof(char *) * Max(action->nids, 1));
	for (int i = 0; i < action->nids; i++)
		copy->ids[i] = pstrdup(action->ids[i]);
	return copy;
}

List *
action_claim(const int64 *ids, int n)
{
	static SPIPlanPtr plan;
	MemoryContext cxt = CurrentMemoryContext;
	List	   *actions;
	WriterState state;
	SqlArgs		args = {0};

	enter(&state);
	sql_add(&args, INT8ARRAYOID, int8_array(ids, n), false);
	actions = read_actions(sql_run_kept(&plan, "UPDATE accessreq.action a SET state = 'sending',"
										" attempts = a.attempts + 1, sent_at = pg_catalog.clock_timestamp(),"
										" http_status = NULL, error = NULL, error_code = NULL"
										" FROM (SELECT id FROM accessreq.action WHERE id = ANY ($1)"
										" AND state = 'queued' FOR UPDATE SKIP LOCKED) c"
										" WHERE a.id = c.id RETURNING " ACTION_COLUMNS,
										&args, SPI_OK_UPDATE_RETURNING), cxt);
	writer_leave(&state);
	/* what may have left is known to whoever comes after a crash */
	if (actions != NIL)
		ForceSyncCommit();
	return actions;
}

/* -------------------------------------------------------------------- outcomes */

#define NOTE_OUTCOME \
	"UPDATE accessreq.action SET state = $4," \
	" settled_at = CASE WHEN $5 THEN pg_catalog.clock_timestamp() END," \
	" sent_at = CASE WHEN $4 = 'queued' THEN NULL ELSE sent_at END," \
	" http_status = $6, answer = coalesce($7, answer), error = $8, error_code = $9," \
	" tracking_id = coalesce($10, tracking_id), access_request_ids = coalesce($11, access_request_ids)" \
	" WHERE id = $1 AND state = $2 AND attempts = $3 RETURNING server"

void
action_note(const Action *action, const char *from, const ActionOutcome *outcome)
{
	static SPIPlanPtr plan;
	WriterState state;
	SqlArgs		args = {0};
	char	   *server = NULL;

	sql_add_int8(&args, action->id);
	sql_add_text(&args, from);
	sql_add_int4(&args, action->attempts);
	sql_add_text(&args, outcome->state);
	sql_add_bool(&args, outcome->settled);
	sql_add(&args, INT4OID, Int32GetDatum(outcome->http_status), outcome->http_status == 0);
	sql_add(&args, JSONBOID, outcome->answer, outcome->answer == (Datum) 0);
	sql_add_text(&args, outcome->error);
	sql_add_text(&args, outcome->error_code ? unpack_sql_state(outcome->error_code) : NULL);
	sql_add_text(&args, outcome->tracking_id);
	sql_add(&args, TEXTARRAYOID, outcome->nids > 0 ? text_array(outcome->ids, outcome->nids) : (Datum) 0,
			outcome->nids == 0);
	enter(&state);
	if (sql_run_kept(&plan, NOTE_OUTCOME, &args, SPI_OK_UPDATE_RETURNING) > 0)
		server = sql_text(0, 1);
	writer_leave(&state);
	if (server != NULL && outcome->settled)
		notify(action->id, server, outcome->state);
}

void
action_note_trouble(const ActionSender *sender, int sqlstate, const char *error)
{
	WriterState state;
	SqlArgs		args = {0};

	enter(&state);
	add_sender(&args, sender);
	sql_add_text(&args, unpack_sql_state(sqlstate));
	sql_add_text(&args, error);
	sql_add_time(&args, GetCurrentTimestamp());
	(void) sql_run("UPDATE accessreq.action SET error_code = $5, error = $6"
				   " WHERE id = (SELECT id FROM accessreq.action WHERE " OF_SENDER " AND state = 'queued'"
				   " AND " DUE " <= $7" IN_ORDER "LIMIT 1 FOR UPDATE SKIP LOCKED)",
				   &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/*
 * What is settled or marked besides does not wait for those whom somebody has
 * locked: they are met again.
 */
#define NOT_LOCKED(condition) \
	" WHERE id = ANY (ARRAY(SELECT a.id FROM accessreq.action a WHERE " condition \
	" FOR UPDATE SKIP LOCKED))"

/* Run an UPDATE … RETURNING id, server, state of settled actions, and tell of each. */
static int
end_actions(const char *sql, SqlArgs *args)
{
	WriterState state;
	uint64		n;

	enter(&state);
	n = sql_run(sql, args, SPI_OK_UPDATE_RETURNING);
	for (uint64 i = 0; i < n; i++)
		notify(sql_int(i, 1), sql_text(i, 2), sql_text(i, 3));
	writer_leave(&state);
	return (int) n;
}

/*
 * The reasons are in the statement itself: one that was sent again once its
 * reason had gone must not fail by what was seen before.
 */
#define IS_GONE \
	"NOT " HAS_OWNER("a.owner_oid") " OR NOT " HAS_SERVER("a.server_oid")

/* One that was created anew is another, to which nobody has said to send it. */
#define WHY_GONE \
	"CASE WHEN NOT " HAS_OWNER("a.owner_oid") \
	" THEN pg_catalog.format('role \"%s\" does not exist any more', a.owner)" \
	" WHEN EXISTS (SELECT FROM pg_catalog.pg_foreign_server f WHERE f.srvname = a.server::name)" \
	" THEN pg_catalog.format('server \"%s\" was dropped, and another has its name:" \
	" accessreq.retry_action() sends it there', a.server)" \
	" ELSE pg_catalog.format('server \"%s\" does not exist any more', a.server) END"

int
action_fail_impossible(const ActionSender *sender)
{
	SqlArgs		args = {0};

	add_sender(&args, sender);
	sql_add_time(&args, GetCurrentTimestamp());
	return end_actions("UPDATE accessreq.action a SET state = 'failed',"
					   " settled_at = pg_catalog.clock_timestamp(),"
					   " error_code = CASE WHEN " IS_GONE " THEN '42704' ELSE '42501' END,"
					   " error = CASE WHEN " IS_GONE " THEN " WHY_GONE
					   " ELSE pg_catalog.format('role \"%s\" has no EXECUTE on accessreq.enqueue_%s() any more',"
					   " a.owner, a.kind) END"
					   NOT_LOCKED(OF_SENDER " AND state = 'queued' AND (" IS_GONE
								  " OR (" DUE " <= $5 AND NOT CASE a.kind"
								  " WHEN 'create' THEN " MAY("a.owner_oid", CREATE_FUNCTION)
								  " WHEN 'cancel' THEN " MAY("a.owner_oid", CANCEL_FUNCTION)
								  " WHEN 'close' THEN " MAY("a.owner_oid", CLOSE_FUNCTION)
								  " ELSE " MAY("a.owner_oid", MERGE_FUNCTION) " END))")
					   " RETURNING id, server, state", &args);
}

int64 *
action_due_ids(const ActionSender *sender, int *n)
{
	WriterState state;
	SqlArgs		args = {0};
	MemoryContext cxt = CurrentMemoryContext;
	int64	   *ids;

	enter(&state);
	add_sender(&args, sender);
	sql_add_time(&args, GetCurrentTimestamp());
	*n = (int) sql_run("SELECT id FROM accessreq.action WHERE " OF_SENDER " AND state = 'queued'"
					   " AND " DUE " <= $5", &args, SPI_OK_SELECT);
	ids = MemoryContextAlloc(cxt, sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		ids[i] = sql_int(i, 1);
	writer_leave(&state);
	return ids;
}

int
action_fail_ids(const int64 *ids, int n, int sqlstate, const char *error)
{
	SqlArgs		args = {0};

	sql_add(&args, INT8ARRAYOID, int8_array(ids, n), false);
	sql_add_text(&args, unpack_sql_state(sqlstate));
	sql_add_text(&args, error);
	return end_actions("UPDATE accessreq.action SET state = 'failed',"
					   " settled_at = pg_catalog.clock_timestamp(), error_code = $2, error = $3"
					   NOT_LOCKED("a.id = ANY ($1) AND a.state = 'queued'") " RETURNING id, server, state",
					   &args);
}

int
action_give_up_unknown(const ActionSender *sender, int64 older_us, int sqlstate, const char *error)
{
	SqlArgs		args = {0};

	add_sender(&args, sender);
	sql_add_text(&args, unpack_sql_state(sqlstate));
	sql_add_text(&args, error);
	sql_add(&args, FLOAT8OID, Float8GetDatum((double) older_us / USECS_PER_SEC), false);
	return end_actions("UPDATE accessreq.action SET settled_at = pg_catalog.clock_timestamp(),"
					   " error_code = $5, error = $6"
					   NOT_LOCKED(OF_SENDER " AND state = 'unknown' AND coalesce(sent_at, enqueued_at)"
								  " <= pg_catalog.clock_timestamp() - $7 * interval '1 second'")
					   " RETURNING id, server, state", &args);
}

/*
 * What the tables say of an access request.  Nobody knows of one without a row; an
 * item that full scans do not return any more may be anything.
 */
#define REQUEST_IS(what, request) \
	"EXISTS (SELECT FROM accessreq.request_status s WHERE s.server = a.server" \
	" AND s.access_request_id = " request " AND " what ")"

#define ALL_CLOSED \
	"NOT EXISTS (SELECT FROM pg_catalog.unnest(a.access_request_ids) u (id)" \
	" WHERE NOT " REQUEST_IS("true", "u.id") " OR " REQUEST_IS("accessreq.is_open(s.state, NULL)", "u.id") ")"

#define ONE_IS_OPEN \
	"EXISTS (SELECT FROM pg_catalog.unnest(a.access_request_ids) u (id)" \
	" WHERE " REQUEST_IS("accessreq.is_open(s.state, s.missing_since)", "u.id") ")"

/* Pulled again since a day had passed. */
#define A_DAY_LATER \
	"coalesce(a.sent_at, a.enqueued_at) < (SELECT j.last_success_at FROM accessreq.sync_job j" \
	" WHERE j.server = a.server) - interval '1 day'"

/* The rows that a create has made: see mark.h. */
#define ITS_ROWS \
	"accessreq.request_status s WHERE s.server = a.server AND " MARK_OF_ROW("s.") " = a.client_token::text"

/* As inquiry.c writes it. */
#define ITS_EVIDENCE \
	"pg_catalog.jsonb_build_object('found', coalesce((SELECT pg_catalog.jsonb_object_agg(f.id, f.states)" \
	" FROM (SELECT s.access_request_id AS id, pg_catalog.jsonb_agg(coalesce(s.state, '')) AS states" \
	" FROM " ITS_ROWS " AND s.access_request_id IS NOT NULL GROUP BY s.access_request_id) f), '{}'))"

static void
settle_creates(SqlArgs *args)
{
	(void) end_actions("UPDATE accessreq.action a SET settled_at = pg_catalog.clock_timestamp(),"
					   " state = 'done', error = NULL, error_code = NULL, answer = " ITS_EVIDENCE ","
					   " access_request_ids = nullif(ARRAY(SELECT DISTINCT s.access_request_id FROM " ITS_ROWS
					   " AND s.access_request_id IS NOT NULL ORDER BY s.access_request_id), '{}')"
					   NOT_LOCKED("a.server = $1 AND a.state = 'unknown' AND a.kind = 'create' AND a.origin = $2"
								  " AND a.settled_at IS NOT NULL AND EXISTS (SELECT FROM " ITS_ROWS ")")
					   " RETURNING id, server, state", args);
}

void
action_settle_by_rows(const char *server)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, identity_origin());
	settle_creates(&args);
	(void) end_actions("UPDATE accessreq.action a SET settled_at = pg_catalog.clock_timestamp(),"
					   " state = CASE WHEN " ALL_CLOSED " THEN 'done' ELSE 'failed' END,"
					   " error_code = CASE WHEN " ALL_CLOSED " THEN NULL ELSE '08006' END,"
					   " error = CASE WHEN " ALL_CLOSED " THEN NULL ELSE"
					   " 'the answer was lost, and a day later it was not carried out' END"
					   NOT_LOCKED("a.server = $1 AND a.state = 'unknown' AND a.kind = 'close' AND a.origin = $2"
								  " AND a.settled_at IS NOT NULL AND (" ALL_CLOSED
								  " OR (" ONE_IS_OPEN " AND " A_DAY_LATER "))")
					   " RETURNING id, server, state", &args);
}

/*
 * Of a server's actions that will be the same role's and have the same key, or
 * cancel the same access request, one can stay what it is: one that may have left
 * before one that has not, and the older.  $1: the server, $2: here.
 */
#define GIVE_WAY(same, which) \
	"WITH a AS (SELECT x.id, x.state, pg_catalog.row_number() OVER (PARTITION BY " same \
	" ORDER BY x.state = 'queued', x.id) AS place FROM (SELECT y.*," \
	" CASE WHEN y.origin = $2 THEN y.owner_oid ELSE (SELECT r.oid FROM pg_catalog.pg_roles r" \
	" WHERE r.rolname = y.owner::name) END AS role FROM accessreq.action y WHERE y.server = $1) x" \
	" WHERE " which ")"

#define SAME_KEY \
	GIVE_WAY("x.role, x.dedupe_key", "x.role IS NOT NULL AND x.dedupe_key IS NOT NULL" \
			 " AND x.state <> ALL (ARRAY['failed', 'cancelled']::text[])")
#define SAME_CANCEL \
	GIVE_WAY("x.access_request_ids[1]", "x.kind = 'cancel' AND x.settled_at IS NULL")

#define FAIL_DUPLICATES(same, reason) \
	same " UPDATE accessreq.action t SET state = 'failed', settled_at = pg_catalog.clock_timestamp()," \
	" error_code = '23505', error = " reason " FROM a WHERE a.id = t.id AND a.place > 1" \
	" AND t.state = 'queued' RETURNING t.id, t.server, t.state"

static void
end_duplicates(const char *server)
{
	static const char *const sql[] = {
		FAIL_DUPLICATES(SAME_KEY, "'another action of the role has the same dedupe_key'"),
		FAIL_DUPLICATES(SAME_CANCEL, "'another action cancels the same access request'"),
	};
	WriterState state;
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, identity_origin());
	for (int i = 0; i < lengthof(sql); i++)
		(void) end_actions(sql[i], &args);
	/* what has left is no failure: it loses the key alone */
	enter(&state);
	(void) sql_run(SAME_KEY " UPDATE accessreq.action t SET dedupe_key = NULL FROM a"
				   " WHERE a.id = t.id AND a.place > 1", &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/*
 * Those whose role is not here stay what they are in the database that they come
 * from, so that a role of their name that is made later is not taken for a
 * stranger.
 */
void
action_adopt(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};

	end_duplicates(server);
	enter(&state);
	sql_add_text(&args, server);
	sql_add_text(&args, identity_origin());
	(void) sql_run("UPDATE accessreq.action a SET origin = $2, owner_oid = r.oid, owner = r.rolname,"
				   " server_oid = f.oid"
				   " FROM pg_catalog.pg_roles r, pg_catalog.pg_foreign_server f"
				   " WHERE f.srvname = $1::name AND r.rolname = a.owner::name AND a.server = $1 AND a.origin <> $2",
				   &args, SPI_OK_UPDATE);
	writer_leave(&state);
	(void) end_actions("UPDATE accessreq.action a SET settled_at = pg_catalog.clock_timestamp(),"
					   " state = CASE WHEN state = 'queued' THEN 'failed' ELSE 'unknown' END,"
					   " error_code = '42704', error = pg_catalog.format('role \"%s\" does not exist', a.owner)"
					   " WHERE a.server = $1 AND a.settled_at IS NULL AND"
					   " (a.origin <> $2 OR NOT " HAS_OWNER("a.owner_oid") ")"
					   " RETURNING id, server, state", &args);
}

bool
action_rename_server(const char *from, const char *to, Oid serverid)
{
	WriterState state;
	SqlArgs		args = {0};
	SqlArgs		left = {0};
	bool		any_left;

	enter(&state);
	sql_add_text(&left, from);
	sql_add_text(&args, from);
	sql_add_text(&args, to);
	sql_add_oid(&args, serverid);
	sql_add_text(&args, identity_origin());
	(void) sql_run("UPDATE accessreq.action a SET server = $2 WHERE a.server = $1"
				   " AND (a.origin <> $4 OR a.server_oid = $3 OR NOT " HAS_SERVER("a.server_oid") ")",
				   &args, SPI_OK_UPDATE);
	any_left = sql_run("SELECT 1 FROM accessreq.action WHERE server = $1 LIMIT 1", &left, SPI_OK_SELECT) > 0;
	writer_leave(&state);
	return any_left;
}

int
action_lose_orphans(const ActionSender *sender, const int64 *ours, int n)
{
	WriterState state;
	SqlArgs		args = {0};
	uint64		lost;

	enter(&state);
	add_sender(&args, sender);
	sql_add(&args, INT8ARRAYOID, int8_array(ours, n), false);
	sql_add_text(&args, unpack_sql_state(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN));
	lost = sql_run("UPDATE accessreq.action SET state = 'unknown', error_code = $6,"
				   " error = 'the process that sent it ended before the answer was noted'"
				   NOT_LOCKED(OF_SENDER " AND state = 'sending' AND id <> ALL ($5)"),
				   &args, SPI_OK_UPDATE);
	writer_leave(&state);
	return (int) lost;
}

static Datum
int4_array(const int *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT4OID, 4, true, TYPALIGN_INT));
}

List *
action_unknown(const ActionSender *sender, const int64 *without, const int *attempts, int n, int most)
{
	MemoryContext cxt = CurrentMemoryContext;
	WriterState state;
	SqlArgs		args = {0};
	List	   *actions;

	enter(&state);
	add_sender(&args, sender);
	sql_add(&args, INT8ARRAYOID, int8_array(without, n), false);
	sql_add_int8(&args, most);
	sql_add(&args, INT4ARRAYOID, int4_array(attempts, n), false);
	actions = read_actions(sql_run("SELECT " ACTION_COLUMNS " FROM accessreq.action a WHERE " OF_SENDER
								   " AND state = 'unknown' AND NOT EXISTS (SELECT FROM"
								   " ROWS FROM (pg_catalog.unnest($5), pg_catalog.unnest($7)) u (id, attempts)"
								   " WHERE u.id = a.id AND u.attempts = a.attempts)" IN_ORDER "LIMIT $6",
								   &args, SPI_OK_SELECT), cxt);
	writer_leave(&state);
	return actions;
}

int64
action_expire(int most)
{
	WriterState state;
	SqlArgs		args = {0};
	int64		n;

	enter(&state);
	sql_add_time(&args, GetCurrentTimestamp() -
				 accessreq_action_retention * (int64) USECS_PER_MINUTE);
	sql_add_int8(&args, most);
	n = sql_run("DELETE FROM accessreq.action WHERE id = ANY (ARRAY("
				"SELECT id FROM accessreq.action WHERE settled_at < $1"
				" ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED))", &args, SPI_OK_DELETE);
	writer_leave(&state);
	return n;
}
