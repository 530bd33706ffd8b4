/*-------------------------------------------------------------------------
 *
 * names.c
 *	  The names of roles in the tables follow the roles.
 *
 * A role is its OID (identity.c); the name beside it is for people.  When a role
 * has been renamed, and once when a worker comes, the rows are walked through, a
 * stretch a turn, because there may be a million.  That a role was made, or got
 * another password, is no reason: so the names are kept here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "identity.h"
#include "names.h"
#include "sql.h"
#include "unit.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Ids of actions that one turn looks at. */
#define STRETCH 10000

/* A lock that another holds is asked for again after this. */
#define PAUSE_MS 10000

typedef struct RoleName
{
	Oid			oid;
	NameData	name;
} RoleName;

typedef struct RoleNames
{
	RoleName   *roles;			/* by OID */
	int			n;
} RoleNames;

static MemoryContext cxt = NULL;
static RoleNames known;

/* Some role may have been renamed. */
static bool stale = true;

/* The walk through the rows: from this id on; -1: none is under way. */
static int64 walk_from = 0;

static TimestampTz not_before = 0;

static void
on_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
}

void
names_open(void)
{
	cxt = AllocSetContextCreate(TopMemoryContext, "accessreq names", ALLOCSET_SMALL_SIZES);
	CacheRegisterSyscacheCallback(AUTHOID, on_role_change, (Datum) 0);
}

/* ------------------------------------------------------------- what is known */

static RoleNames
read_roles(void)
{
	SqlArgs		args = {0};
	RoleNames	now;

	now.n = (int) sql_run("SELECT oid, rolname FROM pg_catalog.pg_roles ORDER BY oid", &args, SPI_OK_SELECT);
	now.roles = MemoryContextAllocZero(cxt, sizeof(RoleName) * Max(now.n, 1));
	for (int i = 0; i < now.n; i++)
	{
		now.roles[i].oid = (Oid) sql_int(i, 1);
		namestrcpy(&now.roles[i].name, sql_text(i, 2));
	}
	return now;
}

/* Has one that is known another name? */
static bool
is_any_renamed(const RoleNames *now)
{
	for (int i = 0, k = 0; i < known.n && k < now->n;)
	{
		if (known.roles[i].oid < now->roles[k].oid)
			i++;
		else if (known.roles[i].oid > now->roles[k].oid)
			k++;
		else if (strcmp(NameStr(known.roles[i++].name), NameStr(now->roles[k++].name)) != 0)
			return true;
	}
	return false;
}

static void
look(void *arg)
{
	RoleNames	now = read_roles();

	/* a walk under way may have passed the rows */
	if (is_any_renamed(&now))
		walk_from = 0;
	if (known.roles != NULL)
		pfree(known.roles);
	known = now;
}

/* ------------------------------------------------------------------ the walk */

static void
walk(void *arg)
{
	if (walk_from == 0)
		identity_refresh_jobs();
	walk_from = identity_refresh_actions(walk_from, STRETCH);
}

long
names_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	ErrorData  *error = NULL;

	if (!stale && walk_from < 0)
		return -1;
	if (now < not_before)
		return unit_ms_until(not_before, now);
	if (stale)
	{
		/* what changes meanwhile is seen the next time */
		stale = false;
		error = unit_run(look, NULL);
		stale = stale || error != NULL;
	}
	if (error == NULL && walk_from >= 0)
		error = unit_run(walk, NULL);
	if (error == NULL)
		return stale || walk_from >= 0 ? 0 : -1;
	if (!unit_error_passes(error))
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not bring the names of roles up to date: %s", error->message)));
	not_before = GetCurrentTimestamp() + PAUSE_MS * INT64CONST(1000);
	return PAUSE_MS;
}
