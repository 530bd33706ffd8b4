/*-------------------------------------------------------------------------
 *
 * dbsetting.h
 *	  Settings of a database: what ALTER DATABASE … SET says now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_DBSETTING_H
#define ACCESSREQ_DBSETTING_H

#include "postgres.h"

/*
 * Is a boolean setting on for this database?  "otherwise" where ALTER DATABASE
 * said nothing.  Wants a transaction.
 */
extern bool dbsetting_is_on(const char *name, bool otherwise);

/* Did it say anything? */
extern bool dbsetting_is_set(const char *name);

#endif							/* ACCESSREQ_DBSETTING_H */
