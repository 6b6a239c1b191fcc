#include "kernels/types.h"

static const pal__type_info types[] = {
	{PAL__F32, "F32", 1, 4},           {PAL__F16, "F16", 1, 2},
	{PAL__BF16, "BF16", 1, 2},         {PAL__Q4_0, "Q4_0", 32, 18},
	{PAL__Q4_1, "Q4_1", 32, 20},       {PAL__Q5_0, "Q5_0", 32, 22},
	{PAL__Q5_1, "Q5_1", 32, 24},       {PAL__Q8_0, "Q8_0", 32, 34},
	{PAL__Q2_K, "Q2_K", 256, 84},      {PAL__Q3_K, "Q3_K", 256, 110},
	{PAL__Q4_K, "Q4_K", 256, 144},     {PAL__Q5_K, "Q5_K", 256, 176},
	{PAL__Q6_K, "Q6_K", 256, 210},     {PAL__IQ4_NL, "IQ4_NL", 32, 18},
	{PAL__IQ4_XS, "IQ4_XS", 256, 136},
};

const pal__type_info *pal__type_find(uint32_t number)
{
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if ((uint32_t)types[i].type == number)
			return &types[i];
	return NULL;
}

const char *pal__type_names(void)
{
	return "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, "
	       "IQ4_NL, IQ4_XS";
}
