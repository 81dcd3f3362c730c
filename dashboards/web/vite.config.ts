import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

// In development, `GRADUS_COORDINATOR` names the coordinator whose API the pages read.
export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', chunkSizeWarningLimit: 800 },
  server: { proxy: { '/api': process.env.GRADUS_COORDINATOR ?? 'http://127.0.0.1:8080' } },
  test: { include: ['src/**/*.test.ts'] },
});
