/*-------------------------------------------------------------------------
 *
 * action.h
 *	  The rows of table action: the queue of calls that belong to a
 *	  transaction.
 *
 * All of this runs in the current transaction, with SPI connected, and writes
 * as the tables' owner.  Texts of an Action are UTF-8, names of servers and
 * roles are in the server's encoding.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ACTION_H
#define ACCESSREQ_ACTION_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef enum ActionKind
{
	ACTION_CREATE,
	ACTION_CANCEL,
	ACTION_CLOSE,
	ACTION_MERGE_CONFIG
} ActionKind;

#define ACTION_KINDS (ACTION_MERGE_CONFIG + 1)

/* As in the column "kind". */
extern const char *const action_kinds[ACTION_KINDS];

/* -------------------------------------------------------------- for sessions */

typedef struct NewAction
{
	const char *server;
	Oid			server_oid;
	ActionKind	kind;
	Datum		request;		/* jsonb */
	Oid			owner;
	Datum		ids;			/* text[] of access requests, or 0 */
	Datum		client_token;	/* uuid of a create, or 0 */
	TimestampTz not_before;		/* DT_NOBEGIN: none */
	const char *dedupe_key;		/* NULL: none */
} NewAction;

/*
 * Write an action; its id.  The id of another that stands for it: the owner's
 * one with the same key, or his cancel of the same request.  Raises 23505 where
 * that is another's, 40001 where it is out of the transaction's sight.
 */
extern int64 action_enqueue(const NewAction *action);

/*
 * Whose it is and how it stands.  Raises 42704 where there is none of a role of
 * which the caller is a member.
 */
extern char *action_state(int64 id, bool *settled);

/*
 * Both raise 42704 as above; retry also where its role or server is gone, 55000
 * and 23505: see functions' comments.
 */
extern void action_retry(int64 id);
extern bool action_cancel(int64 id);

/*
 * The database was promoted or recovered since the server's job last ran: what
 * is queued and due may have been sent by the one before, and becomes unknown,
 * to be looked for first.  Does nothing where that was done.
 */
extern void action_after_recovery(const char *server);

/*
 * For adopt(): the actions of a server that come from another database become
 * those of the roles that bear their owners' names here.  Those that have no owner
 * here end; of those that would have the same dedupe_key all but one fail with
 * 23505, or lose the key where they have left.
 */
extern void action_adopt(const char *server);

/*
 * For rename_server(): the actions follow their server to its new name.  None is sent
 * elsewhere for it: those of another server that has the old name by now stay, which
 * is told, and those of one that is gone have the new name and fail.
 */
extern bool action_rename_server(const char *from, const char *to, Oid serverid);

/*
 * A pull has ended well: what the tables say by now of actions whose answer was
 * lost, and that nobody looks for any more.  Creates are done where a row has
 * their token.  Closes are done where none of their requests is open, and failed
 * where one still was a day after they were sent.
 */
extern void action_settle_by_rows(const char *server);

/* ------------------------------------------------------------ for the worker */

/*
 * Whoever sends: the actions of one owner for one server, that are not settled
 * and belong to this database.  Role and server are their OIDs; the server's name
 * is the one that its rows have, which it may have lost.
 */
typedef struct ActionSender
{
	char	   *server;
	Oid			server_oid;
	char	   *owner;			/* name of the role */
	Oid			owner_oid;
	bool		exists;			/* both do */
	bool		may_all;		/* has it EXECUTE on all of enqueue_…()? */
	bool		held;			/* by hold_actions() */
	TimestampTz retry_after;	/* the tenant asked to be left alone; DT_NOBEGIN */
	TimestampTz due_at;			/* of the first that is queued; DT_NOEND: none */
	bool		sending;		/* are there any? */
	bool		unknown;
} ActionSender;

/* A List of ActionSenders, in the current context. */
extern List *action_senders(void);

typedef struct Action
{
	int64		id;
	ActionKind	kind;
	int			attempts;		/* which of its tries this is */
	const char *request;		/* JSON */
	const char **ids;			/* access requests */
	int			nids;
	const char *client_token;	/* of a create */
	TimestampTz sent_at;		/* DT_NOBEGIN: not known to have been sent */
	TimestampTz enqueued_at;
} Action;

/* A copy in the current context. */
extern Action *action_copy(const Action *action);

/* What of an action decides with which others it is sent. */
typedef struct ActionCandidate
{
	int64		id;
	ActionKind	kind;
	const char *comment;		/* of a cancel; in the server's encoding */
	bool		alone;			/* the tenant refused it in company */
} ActionCandidate;

/* The next that may be sent, in their order: a List of ActionCandidates. */
extern List *action_candidates(const ActionSender *sender, int most);

/*
 * Cancels with the same comments as those among the candidates that may go with
 * others, and are not among them.  All of these are locked.
 */
extern List *action_companions(const ActionSender *sender, List *candidates, int most);

/*
 * Mark them as being sent: a List of Actions, those that nobody has taken
 * meanwhile.  The commit is flushed, whatever synchronous_commit says.
 */
extern List *action_claim(const int64 *ids, int n);

/* What became of one that was sent or looked for. */
typedef struct ActionOutcome
{
	const char *state;			/* done, failed, unknown, queued */
	bool		settled;
	int			http_status;	/* 0: none */
	Datum		answer;			/* jsonb, or 0 */
	const char *error;			/* these in the server's encoding; or NULL */
	int			error_code;		/* an ERRCODE_…, 0: none */
	const char *tracking_id;
	const char *const *ids;		/* what a create made; UTF-8 */
	int			nids;
} ActionOutcome;

/*
 * Write it down, unless the action has moved on since: "from" is the state it
 * was in.  Who listens is told of one that is settled.
 */
extern void action_note(const Action *action, const char *from, const ActionOutcome *outcome);

/* Note on the first that is due why it is not sent. */
extern void action_note_trouble(const ActionSender *sender, int sqlstate, const char *error);

/*
 * Those of "sender" that are queued and cannot be sent any more fail: its role
 * or server is gone; or, of those due, its EXECUTE on the enqueueing function.
 * Their number.
 */
extern int	action_fail_impossible(const ActionSender *sender);

/*
 * Fail these, where they are still queued.  Who fails them for a reason that may
 * have gone since reads which they are before he looks for the reason.
 */
extern int64 *action_due_ids(const ActionSender *sender, int *n);
extern int	action_fail_ids(const int64 *ids, int n, int sqlstate, const char *error);

/* Nobody can look for them, those that were sent so long ago. */
extern int	action_give_up_unknown(const ActionSender *sender, int64 older_us,
								   int sqlstate, const char *error);

/* Those that are marked as being sent, but for these: their worker is gone. */
extern int	action_lose_orphans(const ActionSender *sender, const int64 *ours, int n);

/* Unknown ones that are not settled, without these tries: a List of Actions. */
extern List *action_unknown(const ActionSender *sender, const int64 *without,
							const int *attempts, int n, int most);

/* Delete settled ones that are older than action_retention, a batch; how many. */
extern int64 action_expire(int most);

#endif							/* ACCESSREQ_ACTION_H */
