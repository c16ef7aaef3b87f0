/* Two grants that are alike. */
#pragma once

#include "unit.h"

#include "grant.h"

static inline void assert_same_grant(const struct alloc_grant *a, const struct alloc_grant *b)
{
	assert_memory_equal(&a->cpus, &b->cpus, sizeof(a->cpus));
	assert_true(a->n_memory == b->n_memory && a->n_devices == b->n_devices && a->n_remote == b->n_remote && a->n_links == b->n_links);
	assert_true(a->has_virtual == b->has_virtual && a->virtual_spi == b->virtual_spi);
	for (size_t i = 0; i < a->n_memory; i++) {
		const struct alloc_memory *x = &a->memory[i], *y = &b->memory[i];

		assert_string_equal(x->pool, y->pool);
		assert_true(x->has_base == y->has_base && x->base == y->base && x->size == y->size && x->colors == y->colors);
	}
	for (size_t i = 0; i < a->n_devices; i++)
		assert_string_equal(a->devices[i], b->devices[i]);
	for (size_t i = 0; i < a->n_remote; i++)
		assert_string_equal(a->remote[i], b->remote[i]);
	for (size_t i = 0; i < a->n_links; i++) {
		const struct alloc_link *x = &a->links[i], *y = &b->links[i];

		assert_string_equal(x->name, y->name);
		assert_true(x->slot == y->slot && x->id == y->id && x->peers == y->peers && x->protocol == y->protocol && x->host == y->host &&
			    x->alone == y->alone);
		assert_true(x->base == y->base && x->size == y->size && x->common == y->common && x->output == y->output);
	}
}
