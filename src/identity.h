/*-------------------------------------------------------------------------
 *
 * identity.h
 *	  Who a role, and which a server, in a row is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_IDENTITY_H
#define ACCESSREQ_IDENTITY_H

#include "postgres.h"

/* Which database this is: a restored or copied one is another.  palloc'd. */
extern char *identity_origin(void);

/*
 * The role of this database that a row means, or InvalidOid where that is gone:
 * by its OID where the row is of this database ("origin", as above), else by its
 * name.
 */
extern Oid	identity_role(const char *name, Oid oid, const char *origin);

/*
 * The server that a row means, or InvalidOid: the same, where the row is of this
 * database and the server is there, else the one that has the name.
 */
extern Oid	identity_server(const char *name, Oid oid, const char *origin);

/* The name that a server has by now, by its OID in a row; NULL: it is gone. */
extern char *identity_server_name(Oid oid, const char *origin);

/*
 * Names of roles become those that the roles have now: of jobs and runs; of actions,
 * from an id on so many ids.  The latter tells where to go on, -1: nowhere.  In a
 * transaction, with SPI connected; writes as the tables' owner.
 */
extern void identity_refresh_jobs(void);
extern int64 identity_refresh_actions(int64 from, int ids);

#endif							/* ACCESSREQ_IDENTITY_H */
