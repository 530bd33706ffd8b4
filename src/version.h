/*-------------------------------------------------------------------------
 *
 * version.h
 *	  Does the extension in this database suit the library?
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_VERSION_H
#define ACCESSREQ_VERSION_H

#include "postgres.h"

extern bool version_is_ours(Oid extension);

/*
 * Raises 55000 where it is not, but in a script that makes it so.  False where
 * there is no such extension (any more).
 */
extern bool version_check(Oid extension);

#endif							/* ACCESSREQ_VERSION_H */
