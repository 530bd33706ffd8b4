/*-------------------------------------------------------------------------
 *
 * utility.h
 *	  The hook into utility commands.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_UTILITY_H
#define ACCESSREQ_UTILITY_H

/* In _PG_init, when preloaded. */
extern void utility_install_hook(void);

#endif							/* ACCESSREQ_UTILITY_H */
