#include "sample/philox.h"

__extension__ typedef unsigned __int128 u128;

uint64_t sl_philox_u64(uint64_t seed, uint64_t position)
{
    uint64_t c[4] = {position, 0, 0, 0};
    uint64_t k0 = seed, k1 = 0;
    for (int round = 0; round < 10; round++) {
        u128 p0 = (u128)UINT64_C(0xD2E7470EE14C6C93) * c[0];
        u128 p1 = (u128)UINT64_C(0xCA5A826395121157) * c[2];
        c[0] = (uint64_t)(p1 >> 64) ^ c[1] ^ k0;
        c[2] = (uint64_t)(p0 >> 64) ^ c[3] ^ k1;
        c[1] = (uint64_t)p1;
        c[3] = (uint64_t)p0;
        k0 += UINT64_C(0x9E3779B97F4A7C15); /* Weyl sequence of the key: golden ratio, sqrt(3) - 1 */
        k1 += UINT64_C(0xBB67AE8584CAA73B);
    }
    return c[0];
}

double sl_philox_uniform(uint64_t seed, uint64_t position)
{
    return (double)(sl_philox_u64(seed, position) >> 11) * 0x1p-53;
}
