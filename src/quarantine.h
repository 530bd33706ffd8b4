/*-------------------------------------------------------------------------
 *
 * quarantine.h
 *	  Items that cannot be stored: whose fault an error is, and the rows of
 *	  quarantined_item.  Internal to store.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_QUARANTINE_H
#define ACCESSREQ_QUARANTINE_H

#include "page.h"

/*
 * Is the error, which ended an attempt, one that an item itself causes?  All
 * others (deadlock, lock timeout, full disk, cancel) are the page's.
 */
extern bool quarantine_is_items_fault(const Store *store, const ErrorData *error);

/* page_condemn() for an error; copies of it in the current context, the page's. */
extern void quarantine_condemn(StoreItem *item, const ErrorData *error);

/*
 * Write the page's bad items, and delete those that are stored now.  SPI is
 * connected, the writer entered.
 */
extern void quarantine_write(Store *store);

/*
 * A full scan that began at "since" is complete: delete the items without an
 * id that it did not meet; those with one go when they are stored.  Enters the
 * writer by itself; SPI is connected.
 */
extern void quarantine_sweep(const char *server, TimestampTz since);

#endif							/* ACCESSREQ_QUARANTINE_H */
