/*-------------------------------------------------------------------------
 *
 * mode.c
 *	  Modes of the server in which nothing of ours may start, leave or write.
 *
 * pg_upgrade starts the old and the new server with -b, dumps the one and copies
 * its files while it believes them quiet: what is written in between is torn, and
 * what is sent nobody expects.  PostgreSQL keeps its own workers from starting by
 * settings; ours are on their own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "mode.h"

const char *
mode_why_no_worker(void)
{
	if (IsBinaryUpgrade)
		return "the server runs in binary upgrade mode, for pg_upgrade";
	if (!IsUnderPostmaster)
		return "the server runs in single-user mode";
	return NULL;
}

void
mode_check_not_upgrading(void)
{
	if (IsBinaryUpgrade)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("accessreq neither calls nor writes in binary upgrade mode"),
				 errdetail("The server was started with -b, as pg_upgrade does."),
				 errhint("Start it without -b when the upgrade is over.")));
}
