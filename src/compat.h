/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between the PostgreSQL versions we support (15 to 18).
 *
 * Every test of PG_VERSION_NUM is in this file, so that the rest reads as if
 * there were one version.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_COMPAT_H
#define ACCESSREQ_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "accessreq supports PostgreSQL 15 to 18"
#endif

#include "access/genam.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* 17 gave WaitEventSets a resource owner; NULL is a set of the process. */
static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* 16 replaced the aclchecks for each kind of object by one. */
static inline AclResult
compat_server_aclcheck(Oid serverid, Oid roleid, AclMode mode)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, roleid, mode);
#else
	return pg_foreign_server_aclcheck(serverid, roleid, mode);
#endif
}

static inline bool
compat_owns_database(Oid database, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, roleid);
#else
	return pg_database_ownercheck(database, roleid);
#endif
}

static inline bool
compat_owns_extension(Oid extension, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ExtensionRelationId, extension, roleid);
#else
	return pg_extension_ownercheck(extension, roleid);
#endif
}

/* What an interrupted DROP DATABASE leaves behind; known since 15.4. */
static inline bool
compat_database_is_invalid(const FormData_pg_database *database)
{
#ifdef DATCONNLIMIT_INVALID_DB
	return database->datconnlimit == DATCONNLIMIT_INVALID_DB;
#else
	return false;
#endif
}

/* 17 has a timeout that ends the process, in a transaction of ours too. */
static inline void
compat_no_transaction_timeout(void)
{
#if PG_VERSION_NUM >= 170000
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
#endif
}

/* What our processes wait for. */
typedef enum CompatWait
{
	WAIT_HTTP,					/* a tenant, or in a worker the next deadline */
	WAIT_WORKER,				/* something to do */
	WAIT_LAUNCHER,
	WAIT_LEAVE,					/* a worker that is to leave or to come */
	WAIT_ACTION					/* an action to be settled */
} CompatWait;

/* 17 lets an extension name what it waits for. */
static inline uint32
compat_wait_event(CompatWait what)
{
#if PG_VERSION_NUM >= 170000
	static const char *const names[] = {
		"AccessreqHttp", "AccessreqWorkerMain", "AccessreqLauncherMain", "AccessreqWorkerChange",
		"AccessreqAction"
	};
	static uint32 events[lengthof(names)];

	if (events[what] == 0)
		events[what] = WaitEventExtensionNew(names[what]);
	return events[what];
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* 16 has memberships without the right to become the role. */
static inline bool
compat_may_act_as(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return has_privs_of_role(member, role) || member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/* Tells this process' transactions apart; 17 moved it. */
static inline uint64
compat_transaction(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

/* 18 counts the index searches of a scan for EXPLAIN. */
static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* 17 can also ask for a stronger lock. */
static inline bool
compat_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

#endif							/* ACCESSREQ_COMPAT_H */
