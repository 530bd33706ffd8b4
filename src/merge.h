/*-------------------------------------------------------------------------
 *
 * merge.h
 *	  Merging a patch into a configuration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_MERGE_H
#define ACCESSREQ_MERGE_H

#include "tenant.h"
#include "utils/jsonb.h"

/*
 * The configuration "base" with "patch", an object, merged in, as UTF-8: objects
 * merge, everything else replaces, nothing is removed.  Raises 22023 for a key
 * that it does not have, and 08P01 where it is no object.
 */
extern char *merge_config(Jsonb *base, Jsonb *patch, const Tenant *tenant);

/* Is all of the patch in the configuration, so that merging would change nothing? */
extern bool merge_is_in_place(Jsonb *base, Jsonb *patch);

#endif							/* ACCESSREQ_MERGE_H */
