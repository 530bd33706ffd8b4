/*-------------------------------------------------------------------------
 *
 * job.c
 *	  The rows of sync_job and sync_run: whose pull it is, where it stands, and
 *	  how it ended.
 *
 * A server has one job, whose owner is the first who pulled it.  Only a pull
 * with the owner's mapping moves the job's marks: a token with fewer rights
 * sees fewer rows.
 *
 * A cycle that finds nothing new writes two rows, one of sync_run at its end and
 * one of sync_job; so its row in sync_run is made with its first change, or at
 * the end.  A scan, which may take long and be taken up, has its from the start.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "accessreq.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "compat.h"
#include "foreign/foreign.h"
#include "identity.h"
#include "job.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "row.h"
#include "sql.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "writer.h"

/*
 * Pauses after failures: the job's own "every", but at least the first, doubled
 * each time up to the last.
 */
#define FIRST_RETRY "1 second"
#define LAST_RETRY "10 minutes"
#define MAX_DOUBLINGS 10

/* A run without an end that began so long ago is none: its process is gone. */
#define LONGEST_RUN "7 days"

/* Who listens hears of each page that changed something. */
#define NOTIFY_CHANNEL "accessreq"

/* --------------------------------------------------------------------- the job */

int
job_timeline_here(void)
{
	return (int) GetWALInsertionTimeLine();
}

/* A token is UTF-8, options and tables are in the server's encoding. */
const char *
job_tenant_name(const Tenant *tenant, const char *token_says)
{
	return token_says != NULL ? row_cstring(token_says) : tenant->host;
}

/*
 * Make the job's row, or give one without an owner to the caller.  Two may do so
 * at once: the key decides.
 */
static void
insert_job(const char *server, Oid userid)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, GetUserNameFromId(userid, false));
	sql_add_oid(&args, userid);
	sql_add_text(&args, identity_origin());
	sql_add_int4(&args, job_timeline_here());
	sql_add_oid(&args, get_foreign_server_oid(server, true));
	sql_run("INSERT INTO accessreq.sync_job AS j (server, owner, owner_oid, origin, timeline, server_oid)"
			" VALUES ($1, $2, $3, $4, $5, $6)"
			" ON CONFLICT (server) DO UPDATE SET owner = $2, owner_oid = $3"
			" WHERE j.owner IS NULL", &args, SPI_OK_INSERT);
}

typedef struct JobRow
{
	bool		found;
	bool		is_owner;
	bool		enabled;
	bool		keep_raw;
	char	   *owner;			/* its name, or NULL */
	Oid			owner_role;		/* InvalidOid: it is gone */
	Oid			server_oid;		/* when a pull last began */
	char	   *origin;
	char	   *tenant;
	char	   *held_by;
	Oid			held_by_role;
	bool		scan_due;
	bool		first;
	TimestampTz keep_since;
	PullMarks	marks;
	DateForm	dates;
} JobRow;

/*
 * A scan is due at its time, and where the owner's last one was broken off: a
 * run that nobody ended, or that an error ended which may pass.
 */
#define LAST_SCAN_UNFINISHED \
	"coalesce((SELECT r.cursor IS NOT NULL AND (r.finished IS NULL OR r.error IS NOT NULL)" \
	" FROM accessreq.sync_run r WHERE r.server = j.server AND r.owner_oid = j.owner_oid" \
	" AND r.kind = 'full' ORDER BY r.run_id DESC LIMIT 1), false)"

static JobRow
read_job(const char *server, Oid userid)
{
	JobRow		row = {0};
	SqlArgs		args = {0};
	char	   *nulls;

	row.keep_raw = true;
	row.keep_since = DT_NOBEGIN;
	sql_add_text(&args, server);
	if (sql_run("SELECT keep_raw, tenant, owner_oid, origin, last_scan_at IS NULL,"
				" last_scan_at IS NULL OR next_scan_at IS NULL"
				" OR next_scan_at <= pg_catalog.clock_timestamp() OR " LAST_SCAN_UNFINISHED ","
				" pg_catalog.clock_timestamp() - keep, created_watermark, modified_watermark,"
				" null_modified, owner, enabled, held_by, held_by_oid, server_oid, date_form"
				" FROM accessreq.sync_job j WHERE server = $1", &args, SPI_OK_SELECT) == 0)
		return row;
	row.found = true;
	row.keep_raw = sql_true(0, 1);
	row.tenant = sql_text(0, 2);
	row.origin = sql_text(0, 4);
	row.first = sql_true(0, 5);
	row.scan_due = sql_true(0, 6);
	row.keep_since = sql_time(0, 7);
	row.marks.created_watermark = sql_time(0, 8);
	row.marks.modified_watermark = sql_time(0, 9);
	nulls = sql_text(0, 10);
	row.marks.null_modified = nulls ? strtoll(nulls, NULL, 10) : 0;
	row.owner = sql_text(0, 11);
	row.owner_role = identity_role(row.owner, (Oid) sql_int(0, 3), row.origin);
	row.is_owner = OidIsValid(userid) && row.owner_role == userid;
	row.enabled = sql_true(0, 12);
	row.held_by = sql_text(0, 13);
	row.held_by_role = identity_role(row.held_by, (Oid) sql_int(0, 14), row.origin);
	row.server_oid = (Oid) sql_int(0, 15);
	row.dates = filter_form(sql_text(0, 16));
	return row;
}

/* Another tenant under the same name would be a mixture of two. */
static void
check_tenant(const Tenant *tenant, const char *known, const char *name)
{
	if (known == NULL || strcmp(known, name) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("server \"%s\" leads to another tenant than the one its rows came from",
					tenant->server),
			 errdetail("The rows are of tenant \"%s\", the token is for \"%s\".", known, name),
			 errhint("Create another server for the other tenant, or accessreq.forget() the rows of this one.")));
}

/* A copy of a database must not act for its original. */
static void
check_origin(const char *server, const char *origin)
{
	if (origin == NULL || strcmp(origin, identity_origin()) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("server \"%s\" belongs to another database, of which this one is a copy or a restore",
					server),
			 errdetail("Nothing is pulled, and nothing is sent that changes the tenant."),
			 errhint("If this is now the database that does so, SELECT accessreq.adopt('%s').", server)));
}

bool
job_check_tenant(const Tenant *tenant, const char *server, const char *tenant_name)
{
	const char *name = job_tenant_name(tenant, tenant_name);
	WriterState state;
	SqlArgs		args = {0};
	char	   *known = NULL;

	writer_enter_to_read(&state);
	sql_add_text(&args, server);
	if (sql_run("SELECT tenant FROM accessreq.sync_job WHERE server = $1", &args, SPI_OK_SELECT) > 0)
		known = sql_text(0, 1);
	writer_leave(&state);
	check_tenant(tenant, known, name);
	return known != NULL;
}

bool
job_keep_raw(const char *server)
{
	WriterState state;
	bool		keep_raw;

	writer_enter_to_read(&state);
	keep_raw = read_job(server, InvalidOid).keep_raw;
	writer_leave(&state);
	return keep_raw;
}

/* Before each call that changes the tenant, so it asks for no more than that. */
char *
job_origin(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};
	char	   *origin = NULL;

	writer_enter_to_read(&state);
	sql_add_text(&args, server);
	if (sql_run("SELECT origin FROM accessreq.sync_job WHERE server = $1", &args, SPI_OK_SELECT) > 0)
		origin = sql_text(0, 1);
	writer_leave(&state);
	return origin;
}

JobOwner
job_owner(const char *server)
{
	WriterState state;
	JobRow		row;
	JobOwner	owner;

	writer_enter_to_read(&state);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	owner.found = row.found;
	owner.enabled = row.enabled;
	owner.name = row.owner;
	owner.role = row.owner_role;
	owner.server = row.found ? identity_server(server, row.server_oid, row.origin) : InvalidOid;
	return owner;
}

void
job_check_origin(const char *server)
{
	check_origin(server, job_origin(server));
}

static void
remember_tenant(const char *server, const char *name)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, name);
	sql_run("UPDATE accessreq.sync_job SET tenant = $2 WHERE server = $1 AND tenant IS NULL",
			&args, SPI_OK_UPDATE);
}

void
job_check_same_tenant(const Tenant *tenant, const char *server, const char *tenant_name)
{
	WriterState state;

	if (job_check_tenant(tenant, server, tenant_name))
		return;
	writer_enter_for(&state, "sync_job");
	remember_tenant(server, job_tenant_name(tenant, tenant_name));
	writer_leave(&state);
}


/* Rows alone say so where runs have been deleted; a run, where there are no rows. */
#define WAS_PULLED(server) \
	"(EXISTS (SELECT FROM accessreq.request_status x WHERE x.server = " server ")" \
	" OR EXISTS (SELECT FROM accessreq.sync_run x WHERE x.server = " server "))"

/*
 * Rows of the same tenant may be there under a name that its server had before:
 * they would be stored a second time.  Which name that is, or NULL.
 */
static char *
find_left_behind(const Tenant *tenant, const char *tenant_name)
{
	SqlArgs		args = {0};

	sql_add_text(&args, tenant->server);
	sql_add_text(&args, tenant_name);
	sql_add_oid(&args, tenant->serverid);
	sql_add_text(&args, identity_origin());
	/* another server may have the old name by now */
	if (sql_run("SELECT j.server FROM accessreq.sync_job j WHERE j.tenant = $2 AND j.server <> $1"
				" AND ((j.server_oid = $3 AND j.origin = $4) OR NOT EXISTS"
				" (SELECT FROM pg_catalog.pg_foreign_server f WHERE f.srvname = j.server::name))"
				" AND NOT " WAS_PULLED("$1") " AND " WAS_PULLED("j.server")
				" ORDER BY j.last_success_at DESC NULLS LAST LIMIT 1", &args, SPI_OK_SELECT) == 0)
		return NULL;
	return sql_text(0, 1);
}

char *
job_left_behind(const Tenant *tenant, const char *tenant_name)
{
	const char *name = job_tenant_name(tenant, tenant_name);
	WriterState state;
	char	   *other = NULL;

	writer_enter_to_read(&state);
	other = find_left_behind(tenant, name);
	writer_leave(&state);
	return other;
}

void
job_check_left_behind(const Tenant *tenant, const char *tenant_name)
{
	const char *other = job_left_behind(tenant, tenant_name);

	if (other == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the rows of tenant \"%s\" are stored under the name \"%s\", which no server has any more",
					job_tenant_name(tenant, tenant_name), other),
			 errdetail("A pull of server \"%s\" would store them a second time.", tenant->server),
			 errhint(JOB_LEFT_BEHIND_HINT, other, tenant->server, other, tenant->server)));
}

JobDue
job_claim(const Tenant *tenant, const char *tenant_name, bool beside_archive)
{
	const char *name = job_tenant_name(tenant, tenant_name);
	JobDue		due = {0};
	WriterState state;
	JobRow		row;

	if (!beside_archive)
		job_check_left_behind(tenant, tenant_name);
	writer_enter(&state);
	row = read_job(tenant->server, tenant->userid);
	if (!row.found || row.owner == NULL)
	{
		insert_job(tenant->server, tenant->userid);
		row = read_job(tenant->server, tenant->userid);
	}
	check_origin(tenant->server, row.origin);
	check_tenant(tenant, row.tenant, name);
	if (row.is_owner && row.tenant == NULL)
		remember_tenant(tenant->server, name);
	writer_leave(&state);
	/* one that was dropped and created anew for the same tenant is taken for it */
	if (row.server_oid != tenant->serverid)
		job_note_server(tenant->server);
	due.is_owner = row.is_owner;
	due.scan = row.scan_due || !row.is_owner;
	due.first = row.first;
	return due;
}

void
job_check_has_server(const char *server)
{
	WriterState state;
	JobRow		row;
	char	   *now;

	if (OidIsValid(get_foreign_server_oid(server, true)))
		return;
	writer_enter_to_read(&state);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	if (!row.found)
		return;
	now = identity_server_name(row.server_oid, row.origin);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 now ? errmsg("server \"%s\" does not exist: it is \"%s\" now", server, now) :
			 errmsg("server \"%s\" does not exist any more", server),
			 errdetail("Its job and its rows are still here."),
			 now ? errhint("SELECT accessreq.rename_server('%s', '%s') moves them.", server, now) :
			 errhint("accessreq.rename_server() moves them to another name, accessreq.forget() deletes them.")));
}

void
job_note_server(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	sql_add_oid(&args, get_foreign_server_oid(server, true));
	sql_run("UPDATE accessreq.sync_job SET server_oid = $2 WHERE server = $1", &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/* Raises 42501 unless the current role is a member of the job's owner. */
static void
check_member(const char *server, const JobRow *job)
{
	if (superuser() ||
		(OidIsValid(job->owner_role) && has_privs_of_role(GetUserId(), job->owner_role)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for the job of server \"%s\"", server),
			 job->owner ? errdetail("Its owner is role \"%s\".", job->owner) : 0,
			 job->owner ? errhint("A member of that role may, and a superuser may hand the job over: doc/operations.md.") : 0));
}

/*
 * A job whose owner never had it pulled from the background becomes another's
 * who does.  What the first one's token saw is not what the new one's sees, so
 * it begins with a full scan.
 */
static void
take_over(const char *server, Oid userid)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, GetUserNameFromId(userid, false));
	sql_add_oid(&args, userid);
	sql_run("UPDATE accessreq.sync_job SET owner = $2, owner_oid = $3, failures = 0,"
			" scan_failures = 0, rows_short = 0, last_error = NULL, scan_error = NULL, last_scan_at = NULL, next_scan_at = NULL,"
			" created_watermark = NULL, modified_watermark = NULL, null_modified = 0"
			" WHERE server = $1 AND first_enabled_at IS NULL AND owner_oid IS DISTINCT FROM $3",
			&args, SPI_OK_UPDATE);
}

static void
add_interval(SqlArgs *args, const Interval *value)
{
	sql_add(args, INTERVALOID, IntervalPGetDatum(value), value == NULL);
}

/* Due at once, unless the tenant has told us to stay away. */
static void
enable(const char *server, const JobSchedule *schedule)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	add_interval(&args, schedule->every);
	add_interval(&args, schedule->reconcile_every);
	add_interval(&args, schedule->keep);
	sql_add(&args, BOOLOID, BoolGetDatum(schedule->keep_raw ? *schedule->keep_raw : false),
			schedule->keep_raw == NULL);
	sql_add_bool(&args, schedule->keep_for_ever);
	sql_run("UPDATE accessreq.sync_job SET enabled = true,"
			" first_enabled_at = coalesce(first_enabled_at, pg_catalog.clock_timestamp()),"
			" every = coalesce($2, every), reconcile_every = coalesce($3, reconcile_every),"
			" keep = CASE WHEN NOT $6 THEN coalesce($4, keep) END, keep_raw = coalesce($5, keep_raw),"
			" next_attempt_at = greatest(retry_after, pg_catalog.clock_timestamp()),"
			" next_scan_at = CASE WHEN $3 IS NULL THEN next_scan_at"
			" ELSE least(next_scan_at, last_scan_at + $3) END"
			" WHERE server = $1", &args, SPI_OK_UPDATE);
}

void
job_enable(const char *server, Oid userid, const JobSchedule *schedule)
{
	WriterState state;
	JobRow		row;

	writer_enter(&state);
	insert_job(server, userid);
	take_over(server, userid);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	check_origin(server, row.origin);
	check_member(server, &row);
	if (!OidIsValid(row.owner_role))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the owner of the job of server \"%s\", role \"%s\", does not exist any more",
						server, row.owner),
				 errhint("accessreq.adopt('%s') gives it to you.", server)));
	writer_enter(&state);
	enable(server, schedule);
	writer_leave(&state);
}

void
job_disable(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};
	JobRow		row;

	writer_enter(&state);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	if (!row.found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" has no job", server)));
	check_member(server, &row);
	writer_enter(&state);
	sql_add_text(&args, server);
	sql_run("UPDATE accessreq.sync_job SET enabled = false WHERE server = $1",
			&args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/* -------------------------------------------------------- the job of the queue */

/*
 * A job that nobody pulls yet, so that holds, origin and timeline of a server's
 * actions have a place.
 */
void
job_insert_ownerless(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	sql_add_text(&args, identity_origin());
	sql_add_int4(&args, job_timeline_here());
	sql_add_oid(&args, get_foreign_server_oid(server, true));
	sql_run("INSERT INTO accessreq.sync_job (server, origin, timeline, server_oid) VALUES ($1, $2, $3, $4)"
			" ON CONFLICT DO NOTHING", &args, SPI_OK_INSERT);
	writer_leave(&state);
}

/*
 * Whether job_ensure() has found the row in this subtransaction.  The row may be
 * this transaction's own: a savepoint that is rolled back takes it along.
 */
static struct
{
	char		server[NAMEDATALEN];
	uint64		transaction;	/* 0: none */
	SubTransactionId subtransaction;
}			ensured;

static bool
is_ensured(const char *server)
{
	return ensured.transaction == compat_transaction() &&
		ensured.subtransaction == GetCurrentSubTransactionId() &&
		strcmp(ensured.server, server) == 0;
}

static void
note_ensured(const char *server)
{
	strlcpy(ensured.server, server, sizeof(ensured.server));
	ensured.transaction = compat_transaction();
	ensured.subtransaction = GetCurrentSubTransactionId();
}

void
job_row_is_gone(void)
{
	ensured.transaction = 0;
}

/* Enqueueing asks for each action, so it asks for no more than that. */
bool
job_ensure(const char *server)
{
	static SPIPlanPtr plan;
	WriterState state;
	SqlArgs		args = {0};
	char	   *origin = NULL;
	bool		found,
				moved = false;

	if (is_ensured(server))
		return false;
	writer_enter_to_read(&state);
	sql_add_text(&args, server);
	sql_add_int4(&args, job_timeline_here());
	found = sql_run_kept(&plan, "SELECT origin, timeline <> $2 FROM accessreq.sync_job"
						 " WHERE server = $1", &args, SPI_OK_SELECT) > 0;
	if (found)
	{
		origin = sql_text(0, 1);
		moved = sql_true(0, 2);
	}
	writer_leave(&state);
	if (!found)
		job_insert_ownerless(server);
	check_origin(server, origin);
	if (found && !moved)
		note_ensured(server);
	return moved;
}

bool
job_take_timeline(const char *server)
{
	WriterState state;
	SqlArgs		args = {0};
	bool		moved;

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	sql_add_int4(&args, job_timeline_here());
	moved = sql_run("UPDATE accessreq.sync_job SET timeline = $2"
					" WHERE server = $1 AND timeline <> $2", &args, SPI_OK_UPDATE) > 0;
	writer_leave(&state);
	return moved;
}

/* The first column of a query's rows, in the current context. */
static List *
list_texts(const char *sql, SqlArgs *args)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *texts = NIL;
	WriterState state;
	uint64		n;

	writer_enter_to_read(&state);
	n = sql_run(sql, args, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		texts = lappend(texts, pstrdup(sql_text(i, 1)));
		MemoryContextSwitchTo(old);
	}
	writer_leave(&state);
	return texts;
}

List *
job_enabled_servers(void)
{
	SqlArgs		args = {0};

	sql_add_text(&args, identity_origin());
	return list_texts("SELECT server FROM accessreq.sync_job WHERE origin = $1 AND enabled", &args);
}

List *
job_moved_timelines(void)
{
	SqlArgs		args = {0};

	sql_add_text(&args, identity_origin());
	sql_add_int4(&args, job_timeline_here());
	return list_texts("SELECT server FROM accessreq.sync_job WHERE origin = $1 AND timeline <> $2",
					  &args);
}

bool
job_give_way(const char *server, const char *to)
{
	WriterState state;
	SqlArgs		own = {0};
	SqlArgs		args = {0};
	bool		gone;

	writer_enter_for(&state, "sync_job");
	sql_add_text(&own, server);
	sql_add_text(&args, server);
	sql_add_text(&args, to);
	/* what was said of it while it was there is meant for the other */
	sql_run("UPDATE accessreq.sync_job j SET held_at = coalesce(j.held_at, h.held_at),"
			" held_by = CASE WHEN j.held_at IS NULL THEN h.held_by ELSE j.held_by END,"
			" held_by_oid = CASE WHEN j.held_at IS NULL THEN h.held_by_oid ELSE j.held_by_oid END"
			" FROM accessreq.sync_job h WHERE j.server = $2 AND h.server = $1", &args, SPI_OK_UPDATE);
	gone = sql_run("DELETE FROM accessreq.sync_job WHERE server = $1 AND NOT enabled"
				   " AND NOT " WAS_PULLED("$1"), &own, SPI_OK_DELETE) > 0;
	writer_leave(&state);
	return gone;
}

/*
 * In a copy too, which may be held before it is adopted.  A hold on a job that
 * is nobody's is released by who held it.
 */
bool
job_hold(const char *server, Oid userid, bool hold)
{
	WriterState state;
	SqlArgs		args = {0};
	bool		changed;

	if (hold)
		job_insert_ownerless(server);

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	if (hold)
	{
		sql_add_text(&args, GetUserNameFromId(userid, false));
		sql_add_oid(&args, userid);
	}
	changed = sql_run(hold ?
					  "UPDATE accessreq.sync_job SET held_at = pg_catalog.clock_timestamp(), held_by = $2,"
					  " held_by_oid = $3 WHERE server = $1 AND held_at IS NULL" :
					  "UPDATE accessreq.sync_job SET held_at = NULL, held_by = NULL, held_by_oid = NULL"
					  " WHERE server = $1 AND held_at IS NOT NULL",
					  &args, SPI_OK_UPDATE) > 0;
	writer_leave(&state);
	return changed;
}

void
job_check_may_hold(const char *server)
{
	WriterState state;
	JobRow		row;

	writer_enter_to_read(&state);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	if (row.owner != NULL)
		check_member(server, &row);
	else if (row.held_by != NULL && !superuser() &&
			 !(OidIsValid(row.held_by_role) && has_privs_of_role(GetUserId(), row.held_by_role)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the actions of server \"%s\"", server),
				 errdetail("Role \"%s\" holds them.", row.held_by)));
}

/* As identity_role() finds the role: of column "name", in a database $2 the OID. */
#define MAY_ACT_AS(name) \
	"EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE CASE WHEN j.origin = $2 THEN r.oid = " name "_oid" \
	" ELSE r.rolname = " name "::name END AND pg_catalog.pg_has_role($1, r.oid, 'USAGE'))"

List *
job_servers_to_hold(Oid userid)
{
	SqlArgs		args = {0};

	sql_add_oid(&args, userid);
	sql_add_text(&args, identity_origin());
	return list_texts("SELECT s.server FROM (SELECT j.server FROM accessreq.sync_job j"
					  " UNION SELECT f.srvname::text COLLATE \"C\" FROM pg_catalog.pg_foreign_server f"
					  " JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = f.srvfdw AND w.fdwname = 'accessreq') s"
					  " LEFT JOIN accessreq.sync_job j ON j.server = s.server"
					  " LEFT JOIN pg_catalog.pg_foreign_server o ON o.oid = j.server_oid AND j.origin = $2"
					  " LEFT JOIN pg_catalog.pg_foreign_server n ON n.srvname = s.server::name"
					  " WHERE CASE WHEN j.owner IS NULL THEN coalesce(o.oid, n.oid) IS NOT NULL"
					  " AND pg_catalog.has_server_privilege($1, coalesce(o.oid, n.oid), 'USAGE')"
					  " AND (j.held_by IS NULL OR " MAY_ACT_AS("j.held_by") ")"
					  " ELSE " MAY_ACT_AS("j.owner")
					  " OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid = $1) END"
					  " ORDER BY s.server", &args);
}

void
job_note_retry_after(const char *server, Oid owner, int64 us)
{
	WriterState state;
	SqlArgs		args = {0};

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	sql_add(&args, FLOAT8OID, Float8GetDatum((double) us / USECS_PER_SEC), false);
	sql_add_oid(&args, owner);
	sql_run("UPDATE accessreq.sync_job SET retry_after = greatest(retry_after,"
			" pg_catalog.clock_timestamp() + $2 * interval '1 second'), retry_after_of = $3"
			" WHERE server = $1 AND (owner_oid IS NULL OR owner_oid = $3)", &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/*
 * A scan that failed waits for its time, where CALL sync would take it up at
 * once.  The function that is asked about is the one that enables a job.
 */
List *
job_list(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *jobs = NIL;
	WriterState state;
	SqlArgs		args = {0};
	uint64		n;

	writer_enter_to_read(&state);
	sql_add_text(&args, identity_origin());
	n = sql_run("SELECT j.server, r.rolname, r.oid, pg_catalog.has_function_privilege(r.oid,"
				" 'accessreq.start_sync(name, interval, interval, interval, boolean)', 'EXECUTE'),"
				" j.last_scan_at IS NULL, CASE WHEN j.scan_failures > 0 THEN j.next_scan_at"
				" WHEN j.last_scan_at IS NOT NULL AND NOT " LAST_SCAN_UNFINISHED
				" THEN j.next_scan_at END, j.next_attempt_at"
				" FROM accessreq.sync_job j JOIN pg_catalog.pg_roles r ON r.oid = j.owner_oid"
				" WHERE j.enabled AND j.origin = $1 ORDER BY j.server", &args, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		Job		   *job = palloc0(sizeof(Job));

		job->server = pstrdup(sql_text(i, 1));
		job->owner_name = pstrdup(sql_text(i, 2));
		job->owner = (Oid) strtoul(sql_text(i, 3), NULL, 10);
		job->may = sql_true(i, 4);
		job->first = sql_true(i, 5);
		job->scan_at = sql_time(i, 6);
		job->next_attempt_at = sql_time(i, 7);
		jobs = lappend(jobs, job);
		MemoryContextSwitchTo(old);
	}
	writer_leave(&state);
	return jobs;
}

/* --------------------------------------------------------------------- the run */

/* The cursor of the owner's last scan, or NULL where that is complete. */
static char *
last_cursor(const char *server, Oid owner)
{
	SqlArgs		args = {0};
	char	   *cursor = NULL;

	sql_add_text(&args, server);
	sql_add_oid(&args, owner);
	if (sql_run("SELECT CASE WHEN finished IS NULL OR error IS NOT NULL THEN cursor::text END"
				" FROM accessreq.sync_run"
				" WHERE server = $1 AND owner_oid = $2 AND kind = 'full'"
				" ORDER BY run_id DESC LIMIT 1", &args, SPI_OK_SELECT) > 0)
		cursor = sql_text(0, 1);
	return cursor;
}

/*
 * End the runs that nobody ended, whosever they are: we hold the pull's lock,
 * so their processes are gone, and nobody should be told to wait for them.
 */
static void
close_old_runs(const char *server, int64 beside)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_int8(&args, beside);
	sql_run("UPDATE accessreq.sync_run"
			" SET finished = pg_catalog.clock_timestamp(), error = 'interrupted'"
			" WHERE server = $1 AND finished IS NULL AND run_id <> $2", &args, SPI_OK_UPDATE);
}

static int64
next_run_id(void)
{
	SqlArgs		args = {0};

	sql_run("SELECT pg_catalog.nextval('accessreq.sync_run_run_id_seq')", &args, SPI_OK_SELECT);
	return strtoll(sql_text(0, 1), NULL, 10);
}

/*
 * A server's name may be another job's by now, which a run that began before must
 * not touch.
 */
#define AND_THAT_JOB(id) \
	" AND (" id " IS NULL OR job_id = " id "::pg_catalog.uuid)"

/* The numbers of a run, in the order of RUN_COUNTS. */
static void
add_counts(SqlArgs *args, const JobRun *run)
{
	sql_add_int8(args, run->run_id);
	sql_add_int8(args, run->pages);
	sql_add_int8(args, run->calls.requests);
	sql_add_int8(args, run->counts.seen);
	sql_add_int8(args, run->counts.added);
	sql_add_int8(args, run->counts.changed);
	sql_add_int8(args, run->missing);
	sql_add_int8(args, run->counts.quarantined);
	sql_add_int8(args, run->counts.replaced);
	sql_add_int8(args, run->calls.limited);
	sql_add_int8(args, run->before);
	sql_add(args, INT8OID, Int64GetDatum(run->total), run->total < 0);
}

#define RUN_COUNTS \
	"run_id, pages, requests, rows_seen, rows_new, rows_changed, rows_missing," \
	" rows_quarantined, replaced_characters, rate_limited_waits, rows_before, rows_total"
#define RUN_COUNTS_VALUES "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"
#define UPDATE_RUN \
	"UPDATE accessreq.sync_run SET pages = $2, requests = $3, rows_seen = $4," \
	" rows_new = $5, rows_changed = $6, rows_missing = $7, rows_quarantined = $8," \
	" replaced_characters = $9, rate_limited_waits = $10, rows_before = $11, rows_total = $12"

/* The run's row, made; "finished" and "error" of one that is over already. */
static void
insert_run(JobRun *run, TimestampTz finished, const char *error)
{
	SqlArgs		args = {0};

	add_counts(&args, run);
	sql_add_text(&args, run->server);
	sql_add_text(&args, run->owner);
	sql_add_int4(&args, MyProcPid);
	sql_add_text(&args, run->kind == PULL_SCAN ? "full" : "cycle");
	sql_add_time(&args, run->started);
	sql_add_text(&args, run->cursor);
	sql_add_time(&args, finished);
	sql_add_text(&args, error);
	sql_add_text(&args, run->job_id);
	sql_add_oid(&args, run->userid);
	sql_run("INSERT INTO accessreq.sync_run (" RUN_COUNTS ", server, owner, pid, kind, started,"
			" cursor, finished, error, owner_oid) OVERRIDING SYSTEM VALUE"
			" SELECT " RUN_COUNTS_VALUES ", $13, $14, $15, $16, $17, $18::pg_catalog.jsonb, $19, $20, $22"
			" WHERE $21 IS NULL OR EXISTS (SELECT FROM accessreq.sync_job"
			" WHERE server = $13" AND_THAT_JOB("$21") ")",
			&args, SPI_OK_INSERT);
	run->noted = true;
}

JobRun *
job_begin(const Tenant *tenant, PullKind kind, bool fresh, int64 beside)
{
	JobRun	   *run = palloc0(sizeof(JobRun));
	MemoryContext cxt = CurrentMemoryContext;
	const char *owner = GetUserNameFromId(tenant->userid, false);
	char	   *cursor = NULL;
	WriterState state;
	JobRow		job;

	writer_enter(&state);
	job = read_job(tenant->server, tenant->userid);
	if (job.is_owner && kind == PULL_SCAN && !fresh)
		cursor = last_cursor(tenant->server, tenant->userid);
	close_old_runs(tenant->server, beside);
	run->kind = kind;
	run->total = -1;
	run->server = MemoryContextStrdup(cxt, tenant->server);
	run->owner = MemoryContextStrdup(cxt, owner);
	run->userid = tenant->userid;
	run->is_owner = job.is_owner;
	run->keep_raw = job.keep_raw;
	run->keep_since = job.keep_since;
	run->marks = job.marks;
	run->dates = job.dates;
	run->started = GetCurrentTimestamp();
	run->run_id = next_run_id();
	if (cursor != NULL)
		run->cursor = MemoryContextStrdup(cxt, cursor);
	if (kind == PULL_SCAN)
		insert_run(run, DT_NOBEGIN, NULL);
	writer_leave(&state);
	return run;
}

/* The first time it may have been a restart, and work goes on at once. */
#define AFTER_CRASHES(failures) \
	"pg_catalog.clock_timestamp() + CASE WHEN " failures " = 0 THEN interval '0'" \
	" ELSE least(interval '" LAST_RETRY "', interval '" FIRST_RETRY "'" \
	" * pg_catalog.power(2::float8, least(" failures ", " CppAsString2(MAX_DOUBLINGS) "))) END"

void
job_count_ahead(JobRun *run)
{
	WriterState state;
	SqlArgs		args = {0};

	writer_enter(&state);
	sql_add_text(&args, run->server);
	sql_add_oid(&args, run->userid);
	sql_add_text(&args, run->job_id);
	sql_run(run->kind == PULL_SCAN ?
			"UPDATE accessreq.sync_job SET scan_failures = scan_failures + 1,"
			" next_scan_at = " AFTER_CRASHES("scan_failures") ","
			" next_attempt_at = CASE WHEN last_scan_at IS NULL"
			" THEN " AFTER_CRASHES("scan_failures") " ELSE next_attempt_at END"
			" WHERE server = $1 AND owner_oid = $2" AND_THAT_JOB("$3") :
			"UPDATE accessreq.sync_job SET failures = failures + 1,"
			" next_attempt_at = " AFTER_CRASHES("failures")
			" WHERE server = $1 AND owner_oid = $2" AND_THAT_JOB("$3"), &args, SPI_OK_UPDATE);
	writer_leave(&state);
	run->counted = true;
}

void
job_note_run(JobRun *run)
{
	WriterState state;

	if (run->noted)
		return;
	writer_enter(&state);
	insert_run(run, DT_NOBEGIN, NULL);
	writer_leave(&state);
}

void
job_note_dates(const JobRun *run)
{
	WriterState state;
	SqlArgs		args = {0};

	if (!run->is_owner)
		return;
	sql_add_text(&args, run->server);
	sql_add_oid(&args, run->userid);
	sql_add_text(&args, run->job_id);
	sql_add_text(&args, filter_form_name(run->dates));
	writer_enter(&state);
	sql_run("UPDATE accessreq.sync_job SET date_form = $4"
			" WHERE server = $1 AND owner_oid = $2" AND_THAT_JOB("$3"), &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

DateForm
job_dates(const char *server)
{
	WriterState state;
	JobRow		row;

	writer_enter_to_read(&state);
	row = read_job(server, InvalidOid);
	writer_leave(&state);
	return row.dates;
}

void
job_note_page(JobRun *run, const char *cursor)
{
	SqlArgs		args = {0};
	WriterState state;

	writer_enter(&state);
	add_counts(&args, run);
	sql_add_text(&args, cursor);
	sql_run(UPDATE_RUN ", cursor = coalesce($13::pg_catalog.jsonb, cursor) WHERE run_id = $1",
			&args, SPI_OK_UPDATE);
	writer_leave(&state);
}

/* -------------------------------------------------------------------- its end */

static void
end_run(JobRun *run, const char *error, bool forget_cursor)
{
	SqlArgs		args = {0};

	if (!run->noted)
	{
		insert_run(run, GetCurrentTimestamp(), error);
		return;
	}
	add_counts(&args, run);
	sql_add_text(&args, error);
	sql_add_bool(&args, forget_cursor);
	sql_run(UPDATE_RUN ", finished = pg_catalog.clock_timestamp(), error = $13,"
			" cursor = CASE WHEN $14 THEN NULL ELSE cursor END WHERE run_id = $1",
			&args, SPI_OK_UPDATE);
}

static void
note_short(const JobRun *run)
{
	SqlArgs		args = {0};

	sql_add_int8(&args, run->run_id);
	sql_add_int8(&args, run->short_rows);
	sql_run("UPDATE accessreq.sync_run SET rows_short = $2 WHERE run_id = $1", &args, SPI_OK_UPDATE);
}

void
job_succeed(JobRun *run, const PullMarks *marks, TimestampTz scan_started)
{
	SqlArgs		args = {0};
	WriterState state;

	writer_enter(&state);
	end_run(run, NULL, false);
	if (run->short_rows != 0)
		note_short(run);
	if (run->is_owner)
	{
		sql_add_text(&args, run->server);
		sql_add_time(&args, run->started);
		sql_add_time(&args, marks->created_watermark);
		sql_add_time(&args, marks->modified_watermark);
		sql_add(&args, INT8OID, Int64GetDatum(marks->null_modified), marks->null_modified < 0);
		sql_add_time(&args, scan_started);
		sql_add_oid(&args, run->userid);
		sql_add_text(&args, run->job_id);
		sql_add_int8(&args, run->short_rows);

		/*
		 * Watermarks never go back: a scan that began before a cycle ends after
		 * it.  And a cycle that is well does not make up for a scan that is not.
		 */
		sql_run("UPDATE accessreq.sync_job SET failures = 0, last_error = NULL,"
				" scan_failures = CASE WHEN $6 IS NULL THEN scan_failures ELSE 0 END,"
				" scan_error = CASE WHEN $6 IS NULL THEN scan_error END,"
				" retry_after = CASE WHEN retry_after > pg_catalog.clock_timestamp() THEN retry_after END,"
				" last_success_at = pg_catalog.clock_timestamp(),"
				" next_attempt_at = greatest(retry_after, CASE"
				" WHEN $6 IS NULL THEN greatest($2 + every, pg_catalog.clock_timestamp())"
				" WHEN last_scan_at IS NULL THEN pg_catalog.clock_timestamp()"
				" ELSE coalesce(next_attempt_at, pg_catalog.clock_timestamp()) END),"
				" created_watermark = greatest(created_watermark, $3),"
				" modified_watermark = greatest(modified_watermark, $4),"
				" null_modified = coalesce($5, null_modified),"
				" last_scan_at = coalesce($6, last_scan_at),"
				" rows_short = CASE WHEN $6 IS NULL THEN rows_short ELSE $9 END,"
				" next_scan_at = CASE WHEN $6 IS NULL THEN next_scan_at"
				" ELSE pg_catalog.clock_timestamp() + reconcile_every END"
				" WHERE server = $1 AND owner_oid = $7" AND_THAT_JOB("$8"), &args, SPI_OK_UPDATE);
	}
	writer_leave(&state);
}

/* When to try again after so many failures, and not before $3 seconds. */
#define RETRY_AT(failures) \
	"pg_catalog.clock_timestamp() + greatest($3 * interval '1 second'," \
	" least(interval '" LAST_RETRY "', greatest(every, interval '" FIRST_RETRY "')" \
	" * pg_catalog.power(2::float8, greatest(least(" failures ", " CppAsString2(MAX_DOUBLINGS) "), 0))))"

/* What the tenant said last stands; or what it said before, while that is to come. */
#define RETRY_AFTER \
	"CASE WHEN $3 > 0 THEN pg_catalog.clock_timestamp() + $3 * interval '1 second'" \
	" WHEN retry_after > pg_catalog.clock_timestamp() THEN retry_after END"

/* A failure of the owner's: noted on the job, and when it is tried again. */
static void
fail_job(const char *server, Oid owner, const char *error, int64 retry_us, bool counted,
		 const char *job_id)
{
	SqlArgs		args = {0};

	sql_add_text(&args, server);
	sql_add_text(&args, error);
	sql_add(&args, FLOAT8OID, Float8GetDatum((double) retry_us / USECS_PER_SEC), false);
	sql_add_oid(&args, owner);
	sql_add_int4(&args, counted ? 1 : 0);
	sql_add_text(&args, job_id);
	sql_run("UPDATE accessreq.sync_job SET failures = greatest(failures + 1 - $5, 1), last_error = $2,"
			" retry_after = " RETRY_AFTER ","
			" next_attempt_at = greatest(retry_after, " RETRY_AT("failures - $5") ")"
			" WHERE server = $1 AND owner_oid = $4" AND_THAT_JOB("$6"), &args, SPI_OK_UPDATE);
}

/*
 * Of a scan, which has counters of its own: cycles go on meanwhile, where there
 * can be any and the tenant has not told us to stay away, and do not make good
 * for it.
 */
static void
fail_scan(const JobRun *run, const char *error, int64 retry_us, bool again)
{
	SqlArgs		args = {0};

	sql_add_text(&args, run->server);
	sql_add_text(&args, error);
	sql_add(&args, FLOAT8OID, Float8GetDatum((double) retry_us / USECS_PER_SEC), false);
	sql_add_oid(&args, run->userid);
	sql_add_int4(&args, run->counted ? 1 : 0);
	sql_add_bool(&args, again);
	sql_add_text(&args, run->job_id);
	sql_run("UPDATE accessreq.sync_job SET"
			" scan_failures = greatest(scan_failures + 1 - $5, 1), scan_error = $2,"
			" failures = CASE WHEN last_scan_at IS NULL THEN failures + 1 ELSE failures END,"
			" last_error = CASE WHEN last_scan_at IS NULL THEN $2 ELSE last_error END,"
			" retry_after = " RETRY_AFTER ","
			" next_attempt_at = CASE WHEN $3 > 0 OR last_scan_at IS NULL"
			" THEN " RETRY_AT("scan_failures - $5") " ELSE next_attempt_at END,"
			" next_scan_at = CASE WHEN $6 THEN " RETRY_AT("scan_failures - $5")
			" ELSE pg_catalog.clock_timestamp() + reconcile_every END"
			" WHERE server = $1 AND owner_oid = $4" AND_THAT_JOB("$7"), &args, SPI_OK_UPDATE);
}

void
job_fail_early(const char *server, Oid owner, const char *error, int64 retry_us)
{
	WriterState state;

	writer_enter_for(&state, "sync_job");
	fail_job(server, owner, error, retry_us, false, NULL);
	writer_leave(&state);
}

void
job_note_blocked(const char *server, const char *why)
{
	WriterState state;
	SqlArgs		args = {0};

	writer_enter_for(&state, "sync_job");
	sql_add_text(&args, server);
	sql_add_text(&args, psprintf("waits for a lock: %s", why));
	sql_run("UPDATE accessreq.sync_job SET last_error = $2 WHERE server = $1"
			" AND last_error IS DISTINCT FROM $2", &args, SPI_OK_UPDATE);
	writer_leave(&state);
}

void
job_break_off(JobRun *run, const char *why)
{
	WriterState state;

	writer_enter(&state);
	end_run(run, why, false);
	if (run->counted)
	{
		SqlArgs		args = {0};

		sql_add_text(&args, run->server);
		sql_add_oid(&args, run->userid);
		sql_add_text(&args, run->job_id);
		sql_run(run->kind == PULL_SCAN ?
				"UPDATE accessreq.sync_job SET scan_failures = greatest(scan_failures - 1, 0)"
				" WHERE server = $1 AND owner_oid = $2" AND_THAT_JOB("$3") :
				"UPDATE accessreq.sync_job SET failures = greatest(failures - 1, 0)"
				" WHERE server = $1 AND owner_oid = $2" AND_THAT_JOB("$3"), &args, SPI_OK_UPDATE);
		run->counted = false;
	}
	writer_leave(&state);
}

void
job_fail(JobRun *run, const char *error, int64 retry_us, bool again)
{
	WriterState state;

	writer_enter(&state);
	end_run(run, error, !again);
	if (run->is_owner && run->kind == PULL_SCAN)
		fail_scan(run, error, retry_us, again);
	else if (run->is_owner)
		fail_job(run->server, run->userid, error, retry_us, run->counted, run->job_id);
	writer_leave(&state);
}

/* By its lock: a cycle has no row in sync_run before it finds something. */
int
job_running_pid(Oid serverid)
{
	WriterState state;
	SqlArgs		args = {0};
	char	   *pid = NULL;

	writer_enter_to_read(&state);
	sql_add_oid(&args, MyDatabaseId);
	sql_add_oid(&args, ForeignServerRelationId);
	sql_add_oid(&args, serverid);
	sql_add_int4(&args, STORE_LOCK_PULL);
	if (sql_run("SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'object' AND database = $1"
				" AND classid = $2 AND objid = $3 AND objsubid = $4 AND granted LIMIT 1",
				&args, SPI_OK_SELECT) > 0)
		pid = sql_text(0, 1);
	writer_leave(&state);
	return pid ? atoi(pid) : 0;
}

/* ------------------------------------------------------------------- besides */

void
job_notify(const char *server, int64 run_id, const StoreCounts *page)
{
	StringInfoData buf;

	if (page->added + page->changed == 0)
		return;
	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"server\":");
	json_append_string(&buf, server);
	if (run_id != 0)
		appendStringInfo(&buf, ",\"run\":" INT64_FORMAT, run_id);
	else
		appendStringInfoString(&buf, ",\"run\":null");
	appendStringInfo(&buf, ",\"new\":" INT64_FORMAT ",\"changed\":" INT64_FORMAT "}",
					 page->added, page->changed);
	Async_Notify(NOTIFY_CHANNEL, buf.data);
}

int64
job_expire_runs(int most)
{
	WriterState state;
	SqlArgs		args = {0};
	int64		n;

	writer_enter(&state);
	sql_add(&args, FLOAT8OID, Float8GetDatum((double) accessreq_run_retention), false);
	sql_add_int4(&args, most);
	/* the oldest have the lowest numbers: no index is needed to find them */
	n = sql_run("DELETE FROM accessreq.sync_run WHERE run_id = ANY (ARRAY("
				"SELECT run_id FROM (SELECT run_id, started, finished FROM accessreq.sync_run"
				" ORDER BY run_id LIMIT $2) r"
				" WHERE finished < pg_catalog.clock_timestamp() - $1 * interval '1 minute'"
				" OR (finished IS NULL AND started < pg_catalog.clock_timestamp()"
				" - $1 * interval '1 minute' - interval '" LONGEST_RUN "')))",
				&args, SPI_OK_DELETE);
	writer_leave(&state);
	return n;
}
